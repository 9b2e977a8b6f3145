"""The training engine: steps, optimizers, balance of losses, checkpoints, the loop, and evaluation.

In come batches, a network and the settings of a run; out go weights, checkpoints, lines of metrics and results. Nothing
here knows reports or deployment.
"""

"""What makes weights: steps, optimizers, balance, checkpoints, the loop, evaluation."""

"""The networks: one for four tasks, and one for each task.

In come normalised images as float tensors; out go tensors in the network's own units, one per task. The package
imports no other package of the project.
"""

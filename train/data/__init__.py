"""What a training step is fed with: samples, their order, the plan of micro-batches, decoded batches."""

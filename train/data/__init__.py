"""The data of a training step: samples, their order, the plan of micro-batches, and decoded batches.

In come a set of shards and the regime's settings; out go micro-batches with images and labels in arrays that are ready
for the device. Nothing here knows networks or losses.
"""

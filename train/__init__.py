"""Training and everything after it: evaluation, reports, prediction and export.

In come sets of shards and settings; out go run folders, reports, predictions and exported networks. The packages in it
are layers, from `tasks` at the bottom to `cli` at the top.
"""

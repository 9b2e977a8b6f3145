"""The three training regimes, evaluation and what a run leaves behind."""

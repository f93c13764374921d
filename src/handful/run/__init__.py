"""The run folder: its file, lock, plan, splits, results and card."""

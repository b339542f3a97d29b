"""The training loop, evaluation, and what a run leaves behind."""

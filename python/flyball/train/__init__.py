"""Training: checkpoints, and the way back into a run."""

"""Train state, steps, the loop, checkpoints and records."""

"""A run: its folder, lock, checkpoints, memory and where it computes."""

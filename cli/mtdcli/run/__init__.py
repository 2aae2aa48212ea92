"""A run: its parameters, folder, lock, checkpoints, results and judgement."""

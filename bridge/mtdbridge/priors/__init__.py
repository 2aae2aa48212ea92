"""PyTorch networks as priors of the engine, and the files that hold their weights."""

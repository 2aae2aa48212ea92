"""Expectation-maximisation: the loop, its starts, temperature, mini-batches, gauge and checkpoints."""

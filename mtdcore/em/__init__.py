"""Expectation-maximisation: the loop, its plan and starts, temperature, mini-batches, gauge and checkpoints."""

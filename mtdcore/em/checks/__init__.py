"""Checks of a recovery: invalid arguments before it, doubts about the result after it."""

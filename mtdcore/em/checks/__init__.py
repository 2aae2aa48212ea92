"""What is wrong with a recovery: arguments that cannot be meant before it, doubts about the result after it."""

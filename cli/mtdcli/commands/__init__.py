"""One module per command of ``mtd``, imported when the command runs."""

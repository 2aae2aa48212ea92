"""The command ``mtd``: import, recover, look. Each command is one module, imported only when it runs."""

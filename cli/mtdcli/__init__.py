"""The command ``mtd``. Each of its commands is one module, imported only when it runs."""

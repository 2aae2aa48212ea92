"""The terminal: options, messages, progress."""

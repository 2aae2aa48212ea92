"""What a terminal sees: options, messages, progress."""

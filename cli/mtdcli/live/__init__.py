"""Runs that go on: their page, and who serves it."""

"""Readers of results for image viewers."""

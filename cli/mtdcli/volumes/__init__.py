"""Runs whose target is a volume."""

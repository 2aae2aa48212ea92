"""Volumes: sets of rotations in SO(3), and projections as views."""

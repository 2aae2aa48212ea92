"""The version of this package, for what it writes."""

__version__ = "0.2.0"

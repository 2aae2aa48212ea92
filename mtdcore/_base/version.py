"""The version of this package, for what it writes."""

__version__ = "0.1.0"

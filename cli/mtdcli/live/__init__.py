"""The page of a run that goes on, and its server."""

"""What a run does, nothing left open: one page of policy, what it begins with, and where it starts."""

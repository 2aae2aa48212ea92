"""The plan of a run, with every default resolved: policy, likelihood and noise at the start, and starting targets."""

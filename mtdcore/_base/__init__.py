"""What every other folder may use and that knows nothing of the problem: files, cores, optional packages, sums in a fixed order."""

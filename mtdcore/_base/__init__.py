"""General tools without knowledge of the problem, open to every other folder: files, cores, optional packages, sums in a fixed order."""

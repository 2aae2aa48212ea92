"""The M-step: from statistics and a prior to the next target, and to the next numbers of the likelihood."""

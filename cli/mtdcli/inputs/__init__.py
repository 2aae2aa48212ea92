"""Input of the commands: image files, micrographs, measurements, picks and truths."""

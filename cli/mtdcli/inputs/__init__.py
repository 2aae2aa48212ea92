"""What commands are given: image files, micrographs, measurements, picks and truths."""

"""What copies are seen through: the optics of each micrograph, and the filter that makes the noise white."""

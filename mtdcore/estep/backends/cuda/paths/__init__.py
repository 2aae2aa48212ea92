"""Ways through an E-step on the device; docs/gpu.md describes the choice between them."""

"""Ways through an E-step on the device; docs/gpu.md says which is taken when."""

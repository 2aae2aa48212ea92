"""The E-step: tiles of a measurement in, statistics out; statistics add."""

"""The E-step of volumes: thousands of views by matrix products, scored in full only where copies may be."""

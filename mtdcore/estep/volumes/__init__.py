"""The E-step of volumes: thousands of views by matrix products, all of them scored only at places of copies."""

"""Results where people look at pictures."""

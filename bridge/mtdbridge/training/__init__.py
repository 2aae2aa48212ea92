"""Training of priors: images, losses, the loop and its resumable state."""

"""What a measurement is said to be: views of a target, optics, noise, priors and the two likelihoods."""

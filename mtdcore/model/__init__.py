"""The model of a measurement: views of a target, optics, noise, priors and the two likelihoods."""

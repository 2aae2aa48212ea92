"""A prior of one's own: any object with a method ``score``."""

import matplotlib.pyplot as plt
import numpy as np

import mtdcore as mtd


class Stationary:
    """Images with the mean and the power spectrum of some examples: a Gaussian that the Fourier transform makes diagonal."""

    def __init__(self, examples):
        self.mean = examples.mean(axis=0)
        self.power = np.mean(np.abs(np.fft.fft2(examples - self.mean, norm="ortho")) ** 2, axis=0)

    def score(self, images, noise_std):
        """Gradient of the log density of image + white noise of this level; (B, L, L) in and out."""
        deviation = np.fft.fft2(self.mean - images, norm="ortho")
        return np.fft.ifft2(deviation / (self.power + noise_std**2), norm="ortho").real.astype(images.dtype)


# The prior knows a thousand glyphs; the one that is hidden is not among them.
prior = Stationary(mtd.datasets.glyphs(1000, box_size=28, seed=1))
glyph = mtd.datasets.glyphs(1, box_size=28, seed=0)[0]
made = mtd.simulate(glyph, side=308, density=0.1, snr=0.3, rotations=4, seed=0)

panels, errors = {"hidden": glyph}, []
for name, chosen in {"no prior": None, "own prior": prior}.items():
    found = mtd.recover(made.measurement, box_size=28, rotations=4, prior=chosen, backend="cpu")
    aligned = mtd.results.align(found.target, glyph, max_shift=6)
    panels[f"{name}: error {aligned.error:.2f}"] = aligned.image
    errors.append(aligned.error)

figure, axes = plt.subplots(1, 3, figsize=(7, 2.6), subplot_kw={"xticks": [], "yticks": []})
for place, (title, image) in zip(axes, panels.items(), strict=True):
    place.imshow(image, cmap="gray")
    place.set_title(title, fontsize=9)
figure.savefig("own_prior.png", dpi=80, bbox_inches="tight")

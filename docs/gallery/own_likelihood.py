"""A likelihood of one's own, for noise with heavy tails: a few pixels would drown everything else."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

import mtdcore as mtd
from mtdcore.data.derived import DerivedMeasurement


class Clipped(DerivedMeasurement):
    def derive(self, tile):  # measurements are read tile by tile
        return replace(tile, values=np.clip(tile.values, -1.0, 1.0))


# A likelihood owns what an E-step scores: here pixels of bounded influence (Huber 1964).
class HeavyTails(mtd.WindowLikelihood):
    def whitened(self, measurement):
        return Clipped(super().whitened(measurement))


# Copies of a glyph in Student's t noise of two degrees of freedom, whose variance is infinite.
glyph = mtd.datasets.glyphs(1, box_size=20, seed=0)[0]
made = mtd.simulate(glyph, side=240, count=20, snr=np.inf, rotations=4, seed=0)
pixels = np.asarray(made.measurement.array)[0] + 0.5 * np.random.default_rng(0).standard_t(2, (240, 240))
panels, correlations = {"measurement, a part": pixels[:100, :100], "hidden": glyph}, []
for kind in (mtd.WindowLikelihood, HeavyTails):
    model = kind(mtd.Rotations(4, 20), noise_std=1.0, expected_count=20)
    found = mtd.recover(pixels, box_size=20, rotations=4, likelihood=model, noise="white")
    image = mtd.results.align(found.target, glyph, max_shift=4).image
    correlations.append(mtd.results.correlation(image, glyph))
    panels[f"{kind.__name__}\ncorrelation {correlations[-1]:.2f}"] = image

figure, axes = plt.subplots(1, 4, figsize=(9, 2.6), subplot_kw={"xticks": [], "yticks": []})
for place, (title, image) in zip(axes, panels.items(), strict=True):
    place.imshow(image, cmap="gray")
    place.set_title(title, fontsize=9)
figure.savefig("own_likelihood.png", dpi=80, bbox_inches="tight")

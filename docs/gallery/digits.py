"""A digit comes back from noise that hides every copy of it, with a prior over digits."""

import matplotlib.pyplot as plt
import numpy as np

import mtdbridge
import mtdcore as mtd

# What is hidden: a 4, drawn by strokes; the prior was trained on handwriting (MNIST) and has not seen it.
images, labels = mtd.datasets.labelled_glyphs(50, box_size=28, seed=1)
digit = images[labels == mtd.datasets.GLYPH_NAMES.index("4")][0]

# Nine copies, each turned by one of four right angles, in noise of three times their power.
made = mtd.simulate(digit, side=252, density=0.1, snr=0.3, rotations=4, seed=0)

# The engine is told the size of the box and the angles. Where the copies are it never decides.
prior = mtdbridge.load_prior("mnist")
found = mtd.recover(
    made.measurement, box_size=28, rotations=4, prior=prior, starts=8, iterations=40, backend="cpu"
)
print(found)

# Compare with the truth: small shifts are forgiven, since nothing fixes the exact place of a digit in its box.
aligned = mtd.results.align(found.target, digit, max_shift=6)
average = mtd.results.align(found.aligned_average, digit, max_shift=6)

panels = {
    "measurement, a part": np.asarray(made.measurement.array)[0, :90, :90],
    f"average: error {average.error:.2f}": average.image,
    f"with the prior: error {aligned.error:.2f}": aligned.image,
    "hidden": digit,
}
figure, axes = plt.subplots(1, 4, figsize=(9, 2.6), subplot_kw={"xticks": [], "yticks": []})
for place, (title, image) in zip(axes, panels.items(), strict=True):
    place.imshow(image, cmap="gray")
    place.set_title(title, fontsize=9)
figure.savefig("digits.png", dpi=65, bbox_inches="tight")

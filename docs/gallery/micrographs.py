"""Micrographs with coloured noise: an average, and picks for the next program, without picking by hand."""

import matplotlib.pyplot as plt
import numpy as np

import mtdcore as mtd

# What is hidden: ten copies of a glyph of 20 pixels in each of four micrographs.
glyph = mtd.datasets.glyphs(3, box_size=20, seed=2)[2]
made = mtd.simulate(glyph, side=150, count=10, snr=np.inf, rotations=4, micrographs=4, separation=1, seed=0)

# Pink noise, whose amplitude falls as one over the frequency: slow clouds that outweigh every copy.
frequency = np.maximum(np.hypot(np.fft.fftfreq(150)[:, None], np.fft.rfftfreq(150)), 1 / 150)
white = np.random.default_rng(0).standard_normal((4, 150, 150))
pink = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(150, 150))
stack = np.asarray(made.measurement.array) + 0.6 * pink / pink.std()

# A list or folder of MRC files is read as this stack is. The spectrum of the noise is learned with the target.
found = mtd.recover(stack, box_size=20, rotations=4)
print(found, found.noise, sep="\n")

# Every copy with its place, angle and probability, as RELION, cryoSPARC and napari read them.
copies = mtd.results.detect(stack, found.target, found.likelihood)
copies.to_star("picks.star", micrographs=[f"micrograph_{i}.mrc" for i in range(4)])
aligned = mtd.results.align(found.target, glyph, max_shift=4)
right = len(mtd.results.match(copies.in_frame_of(aligned), made.positions, tolerance=2).pairs)

figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), subplot_kw={"xticks": [], "yticks": []})
picks = f"first micrograph, picks circled\n{right} of {len(copies)} in all are right"
panels = {picks: stack[0], f"average: error {aligned.error:.2f}": aligned.image, "hidden": glyph}
for place, (title, image) in zip(axes, panels.items(), strict=True):
    place.imshow(image, cmap="gray")
    place.set_title(title, fontsize=9)
first = copies.only(0)
axes[0].plot(first.column + 10, first.row + 10, "o", color="C1", fillstyle="none", markersize=20)
figure.savefig("micrographs.png", dpi=60, bbox_inches="tight")

"""A volume from its projections in unknown directions at unknown places."""

import matplotlib.pyplot as plt
import numpy as np

import mtdcore as mtd
from mtdcore.synthetic.volumes import Gaussians

# What is hidden: a stand of four thin rods in a box of 12 voxels a side.
corner, foot = (0, 0, 0), (4, 0, 0)
rods = [(corner, foot, 9), (corner, (0, 3, 0), 7), (corner, (0, 0, -3.5), 8), (foot, (4, 0, 2.5), 6)]
stand = Gaussians.of(np.concatenate([np.linspace(*rod) for rod in rods]), widths=0.7)

# Eight micrographs with 38 projections each, as strong as the noise; directions are uniform on the sphere.
made = mtd.simulate_volume(stand, box_size=12, count=38, snr=1.0, seed=0)
found = mtd.recover_volume(made.measurement, box_size=12, iterations=60)
print(found)

# Neither the orientation nor the hand can be known from projections: bring both together first.
aligned = mtd.results.align_volumes(found.volume, made.volume)
shape = mtd.results.shape_correlation(aligned.volume, made.volume)

figure, axes = plt.subplots(2, 4, figsize=(8, 4.2), subplot_kw={"xticks": [], "yticks": []})
volumes = {"hidden": made.volume, "recovered": aligned.volume}
for row, (name, volume) in zip(axes, volumes.items(), strict=True):
    row[0].imshow(volume[6], cmap="gray", vmin=0)
    row[0].set_title(f"{name}: section", fontsize=9)
    for axis, place in enumerate(row[1:]):
        place.imshow(volume.sum(axis), cmap="gray", vmin=0)
        place.set_title(f"projection along {'zyx'[axis]}", fontsize=9)
figure.suptitle(f"correlation {aligned.correlation:.2f}, without spherical means {shape:.2f}", fontsize=10)
figure.savefig("volume.png", dpi=80, bbox_inches="tight")

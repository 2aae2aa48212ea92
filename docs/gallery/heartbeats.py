"""A heartbeat that comes back at unequal times: the same problem with one dimension."""

import matplotlib.pyplot as plt
import numpy as np

import mtdcore as mtd

# What is hidden: a beat of 60 samples (P wave, QRS complex, T wave).
time = np.arange(60)
waves = [(12, 3, 0.25), (24, 1.2, -0.3), (27, 1.5, 1.6), (30, 1.5, -0.5), (45, 5, 0.45)]
beat = sum(height * np.exp(-((time - at) ** 2) / (2 * width**2)) for at, width, height in waves)

# 40 beats in 6000 samples, as strong as the noise. A signal is a picture one pixel high.
made = mtd.simulate(beat, shape=(1, 6000), count=40, snr=1.0, min_separation=60, seed=0)

found = mtd.recover(made.measurement, box_size=(1, 60), rotations=1, min_separation="auto")
copies = mtd.results.detect(made.measurement, found.target, found.likelihood)
print(found)

# Where in its box the beat sits cannot be known: shifts are forgiven.
aligned = mtd.results.align(found.target, made.target, max_shift=(0, 12))
error = aligned.error

figure, (above, below) = plt.subplots(2, 1, figsize=(8, 4), layout="constrained")
above.plot(np.asarray(made.measurement.array)[0, 0, :1200], linewidth=0.6)
for first in copies.column[copies.column < 1200]:
    above.axvspan(first, first + 60, color="C1", alpha=0.3)
above.set_title(f"the signal, with the copies found shaded ({len(copies)} of 40 in all)", fontsize=9)
below.plot(beat, "k--", linewidth=1, label="hidden in it")
below.plot(aligned.image[0], label=f"recovered, error {error:.2f}")
below.set_xlabel("sample")
below.legend(frameon=False)
figure.savefig("heartbeats.png", dpi=65)

"""Long sums do not lose digits."""

import numpy as np
import pytest

from mtdcore import PatchLikelihood, WindowLikelihood, e_step, get_backend
from mtdcore._base.summing import tree_sum
from mtdcore.model.rotations import Rotations
from mtdcore.testing import assert_same_statistics


@pytest.mark.parametrize(
    "likelihood",
    [
        PatchLikelihood(Rotations(4, 5), 1.0, 0.5),
        WindowLikelihood(Rotations(4, 5), 1.0, expected_count=3000.0),
    ],
    ids=["patch", "window"],
)
def test_a_thousand_equal_micrographs_weigh_a_thousand_times_one(likelihood):
    """The engine's own sums: whatever a tile gives, a thousand of it are a thousand times that."""
    one = np.random.default_rng(0).normal(size=(1, 40, 40)).astype(np.float32)
    many = np.broadcast_to(one, (1000, 40, 40))
    target, backend = np.random.default_rng(1).normal(size=(5, 5)), get_backend("cpu", threads=1)
    bound = likelihood.bind(many.shape)
    share = (
        bound
        if isinstance(bound, PatchLikelihood)
        else WindowLikelihood(Rotations(4, 5), 1.0, expected_count=3.0)
    )
    single, total = e_step(one, target, share, backend), e_step(many, target, likelihood, backend)
    assert_same_statistics(total, single.scaled(1000.0), 1e-10)


@pytest.mark.slow
def test_a_billion_terms_keep_ten_digits():
    """10^9 numbers of 53 bits, added as an E-step adds its tiles: one part after another, the parts in a tree.

    Their sum is known exactly, from the sums of their upper and lower halves as integers.
    """
    rng, chunk, per_part, exact = np.random.default_rng(0), 2**20, 64, 0

    def parts():
        nonlocal exact
        for _ in range(10**9 // chunk + 1):
            terms = rng.integers(1 << 53, size=chunk, dtype=np.uint64)
            exact += (int((terms >> np.uint64(26)).sum()) << 26) + int((terms & np.uint64(2**26 - 1)).sum())
            columns = terms.astype(np.float64).reshape(per_part, -1)
            part = columns[0].copy()
            for column in columns[1:]:  # the order of a loop over the tiles of each part
                part += column
            yield from part.tolist()

    found = tree_sum(parts())
    assert abs(int(found) - exact) <= 1e-10 * exact

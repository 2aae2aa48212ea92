"""What lies in the margin of the statistics is for moves of the frame: it counts for nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from mtdcore import Statistics, get_backend
from mtdcore.testing import Case, assert_same_statistics

WEIGHTS = (0.6, 0.3, 0.1)


def test_the_bound_is_that_of_the_box_of_each_class(exact):
    """Three classes of three rotations, more coverage in the margin than inside."""
    case = Case("patch tied", 6, 3, 2, class_weights=WEIGHTS)
    sums = case.accumulate(exact)
    coverage = 1e3 * np.ones_like(sums.coverage)
    coverage[:, 2:-2, 2:-2] = inside = sums.coverage[:, 2:-2, 2:-2]
    found = Statistics.of(replace(sums, coverage=coverage), case.views)
    for c in range(3):
        expected = inside[3 * c : 3 * c + 3].max(axis=(1, 2)).sum()
        assert found.of_class(c).normal.bound == pytest.approx(expected, rel=1e-14)
        np.testing.assert_array_equal(found.of_class(c).frame.right, found.frame.right[c])
    assert found.normal.bound == max(found.of_class(c).normal.bound for c in range(3))
    assert found.frame.normal.bound > 1e3


@pytest.mark.parametrize("model", ["patch tied", "window"])
@pytest.mark.parametrize("name", ["cpu", "array"])
def test_a_margin_changes_nothing_inside(name, model):
    """Of each class: without its frame, it is what there is without a margin."""
    backend = get_backend(name, "float64", threads=1)
    wide, plain = (
        Case(model, 6, 3, margin, masked=True, class_weights=WEIGHTS).statistics(backend) for margin in (2, 0)
    )
    assert np.abs(wide.frame.right[..., :2, :]).max() > 0
    assert_same_statistics(replace(wide, frame=None), plain, 1e-10)
    for c in range(3):
        assert_same_statistics(replace(wide.of_class(c), frame=None), plain.of_class(c), 1e-10)

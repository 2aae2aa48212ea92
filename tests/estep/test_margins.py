"""What lies in the margin of the statistics is for moves of the frame: it counts for nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from mtdcore import get_backend
from mtdcore.testing import Case

WEIGHTS = (0.6, 0.3, 0.1)


@pytest.fixture
def found(exact):
    """Three classes of three rotations, more coverage in the margin than inside."""
    sums = Case("patch tied", 6, 3, 2, class_weights=WEIGHTS).accumulate(exact)
    coverage = 1e3 * np.ones_like(sums.coverage)
    coverage[:, 2:-2, 2:-2] = sums.coverage[:, 2:-2, 2:-2]
    return replace(sums, coverage=coverage, classes=3)


def test_largest_coverage_is_that_of_the_box(found):
    inside = found.coverage[:, 2:-2, 2:-2]
    assert found.largest_coverage == pytest.approx(inside.max(axis=(1, 2)).sum(), rel=1e-14)
    assert found.largest_coverage < 1e3


def test_copies_and_coverage_of_a_class_are_those_of_its_boxes(found):
    for c in range(3):
        of_class, inside = found.of_class(c), found.coverage[3 * c : 3 * c + 3, 2:-2, 2:-2]
        assert of_class.margin == 2
        assert of_class.expected_count == pytest.approx(inside.sum() / 36, rel=1e-14)
        assert of_class.largest_coverage == pytest.approx(inside.max(axis=(1, 2)).sum(), rel=1e-14)


@pytest.mark.parametrize("model", ["patch tied", "window"])
@pytest.mark.parametrize("name", ["cpu", "array"])
def test_a_margin_changes_nothing_inside(name, model):
    """Of each class: the frame with a margin, cropped, is the frame without."""
    backend = get_backend(name, "float64", threads=1)
    wide, plain = (
        Case(model, 6, 3, margin, masked=True, class_weights=WEIGHTS).accumulate(backend) for margin in (2, 0)
    )
    assert np.abs(wide.coverage[:, :2]).max() > 0
    for c in range(3):
        ours, theirs = (replace(s, classes=3).of_class(c) for s in (wide, plain))
        np.testing.assert_allclose(ours.cropped().backprojection, theirs.backprojection, rtol=0, atol=1e-10)
        np.testing.assert_allclose(ours.cropped().coverage, theirs.coverage, rtol=0, atol=1e-10)
        assert ours.largest_coverage == pytest.approx(theirs.largest_coverage, rel=1e-10)
        assert ours.expected_count == pytest.approx(theirs.expected_count, rel=1e-10)

"""Conformance tests of views."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod

import numpy as np
import pytest

from ..errors import ParameterError
from ..model.views import Views


class ViewsConformance(ABC):
    """Views are linear, their adjoint is exact, and their attributes (gain, exact, shapes) are true.

    Attributes:
        rtol: largest relative deviation in float64.
    """

    rtol: float = 1e-10

    @abstractmethod
    def make_views(self) -> Views:
        """The views under test, few enough for dense matrices."""

    @pytest.fixture
    def views(self) -> Views:
        """The views."""
        return self.make_views()

    def random(self, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
        """Normal numbers."""
        return np.random.default_rng(seed).normal(size=shape)

    def stack(self, views: Views, seed: int = 1) -> np.ndarray:
        """Random images, one for each template."""
        return self.random((views.count, *views.box_shape), seed)

    def matrix(self, views: Views) -> np.ndarray:
        """(T h w, target) dense matrix of all templates."""
        size = int(np.prod(views.target_shape))
        units = np.eye(size).reshape(-1, *views.target_shape)
        return np.stack([np.asarray(views.apply(unit)).ravel() for unit in units], axis=1)

    def test_shapes(self, views: Views) -> None:
        """Templates have the shape of the box, the adjoint that of the target; dtypes stay."""
        for dtype in ("float32", "float64"):
            seen = views.apply(self.random(views.target_shape).astype(dtype))
            assert (seen.shape, str(seen.dtype)) == ((views.count, *views.box_shape), dtype)
            back = views.adjoint(self.stack(views).astype(dtype))
            assert (tuple(back.shape), str(back.dtype)) == (views.target_shape, dtype)
        weights = views.log_weights
        assert weights is None or weights.shape == (views.count,)

    def test_linear(self, views: Views) -> None:
        """Templates of a sum are the sum of templates."""
        first, second = (self.random(views.target_shape, seed) for seed in (2, 3))
        both = views.apply(2.0 * first - second)
        np.testing.assert_allclose(both, 2.0 * views.apply(first) - views.apply(second), atol=self.rtol * 10)

    def test_adjoint(self, views: Views) -> None:
        """``<A F, y> = <F, A^T y>``."""
        target, stack = self.random(views.target_shape), self.stack(views)
        left, right = np.vdot(views.apply(target), stack), np.vdot(target, views.adjoint(stack))
        assert left == pytest.approx(right, rel=self.rtol, abs=self.rtol * float(np.linalg.norm(stack)))

    def test_parts(self, views: Views) -> None:
        """Parts of the templates, their adjoints and normal operators make up the whole."""
        target, stack, cut = self.random(views.target_shape), self.stack(views), views.count // 2
        weights = np.abs(stack)
        parts = [slice(0, cut), slice(cut, views.count)] if cut else [slice(0, views.count)]
        seen = np.concatenate([views.apply(target, part) for part in parts])
        np.testing.assert_allclose(seen, views.apply(target), atol=self.rtol)
        back = sum(views.adjoint(stack[part], part) for part in parts)
        np.testing.assert_allclose(back, views.adjoint(stack), atol=self.rtol * 10)
        normal = views.normal(weights[parts[0]], parts[0])
        for part in parts[1:]:
            normal = normal + views.normal(weights[part], part)
        np.testing.assert_allclose(normal(target), views.normal(weights)(target), atol=self.rtol * 10)

    def test_normal(self, views: Views) -> None:
        """``N F = sum_t A_t^T (c_t A_t F)``; it scales and bounds its eigenvalues."""
        target, weights = self.random(views.target_shape), np.abs(self.stack(views))
        weights = self.coverage(weights)
        normal = views.normal(weights)
        expected = views.adjoint(weights * views.apply(target))
        scale = np.abs(expected).max()
        np.testing.assert_allclose(normal(target), expected, atol=self.rtol * scale)
        np.testing.assert_allclose(normal.scaled(0.5)(target), 0.5 * expected, atol=self.rtol * scale)
        dense = self.matrix(views)
        largest = np.linalg.eigvalsh(dense.T @ (weights.ravel()[:, None] * dense)).max()
        assert largest <= normal.bound * (1 + 1e-9)

    def coverage(self, weights: np.ndarray) -> np.ndarray:
        """Weights that the normal operator accepts; constant over each template if it accepts only those."""
        return weights

    def test_normal_is_solved(self, views: Views) -> None:
        """With full coverage, ``solve`` recovers the target."""
        target = self.random(views.target_shape)
        normal = views.normal(np.ones((views.count, *views.box_shape)))
        right = normal(target)
        solved = normal.solve(right, np.zeros(views.target_shape))
        assert np.linalg.norm(normal(solved) - right) <= 1e-4 * np.linalg.norm(right)

    def test_gain(self, views: Views) -> None:
        """No view has a larger squared norm than the gain."""
        dense = self.matrix(views).reshape(views.count, -1, int(np.prod(views.target_shape)))
        largest = max(np.linalg.norm(one, 2) ** 2 for one in dense)
        assert largest <= views.gain * (1 + 1e-6)

    def test_exact(self, views: Views) -> None:
        """Exact views permute pixels: templates keep every value."""
        if views.exact:
            target = self.random(views.target_shape).reshape(views.classes, -1)
            seen = np.asarray(views.apply(target.reshape(views.target_shape))).reshape(views.count, -1)
            per_class = views.count // views.classes
            for t, image in enumerate(seen):
                np.testing.assert_array_equal(np.sort(image), np.sort(target[t // per_class]))

    def test_framed(self, views: Views) -> None:
        """On a larger box, a target with nothing near its edge looks the same."""
        margin = 2
        wide = views.framed(margin)
        assert wide.box_shape == tuple(n + 2 * margin for n in views.box_shape)
        assert wide.count == views.count
        first = 1 if views.classes > 1 else 0
        grown = tuple(n if axis < first else n + 2 * margin for axis, n in enumerate(views.target_shape))
        assert wide.target_shape == grown

    def test_coarse(self, views: Views) -> None:
        """A coarse set has the same target and box, and fewer views."""
        coarse = views.coarse(max(1, views.count // views.classes // 2))
        if coarse is not None:
            assert (coarse.target_shape, coarse.box_shape) == (views.target_shape, views.box_shape)
            assert coarse.count <= views.count
            assert coarse.classes == views.classes

    def test_turned(self, views: Views) -> None:
        """As many views of the same target; the same seed, the same views."""
        one, again = views.turned(3), views.turned(3)
        target = self.random(views.target_shape)
        assert (one.count, one.target_shape) == (views.count, views.target_shape)
        np.testing.assert_array_equal(one.apply(target), again.apply(target))

    def test_travels(self, views: Views) -> None:
        """Views can be pickled."""
        other, target = pickle.loads(pickle.dumps(views)), self.random(views.target_shape)
        np.testing.assert_array_equal(other.apply(target), views.apply(target))

    def test_arrays_of_another_shape_are_refused(self, views: Views) -> None:
        """A target of another shape raises."""
        with pytest.raises(ParameterError):
            views.apply(np.zeros(tuple(n + 1 for n in views.target_shape)))

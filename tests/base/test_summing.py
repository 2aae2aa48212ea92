"""One order of addition, whoever adds."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from mtdcore._base.summing import FAN_IN, SummingExecutor, map_sum, node_sum, tree_sum


class Term(str):
    """Adds like a number that remembers the order of its additions."""

    __slots__ = ()

    def __add__(self, other):
        return Term(f"({self}+{other})")


def written(terms):
    """The definition: nodes of FAN_IN terms, level by level."""
    while len(terms) > 1:
        terms = [node_sum(terms[i : i + FAN_IN]) for i in range(0, len(terms), FAN_IN)]
    return terms[0]


@pytest.mark.parametrize(
    "count", [1, 2, FAN_IN - 1, FAN_IN, FAN_IN + 1, 3 * FAN_IN, FAN_IN**2, FAN_IN**2 + FAN_IN + 3]
)
def test_the_order_is_that_of_the_tree(count):
    names = [f"t{i}" for i in range(count)]
    expected = written([Term(name) for name in names])
    assert tree_sum(map(Term, names)) == expected
    assert map_sum(Term, names, None) == expected
    with ThreadPoolExecutor(3) as pool:
        assert map_sum(Term, names, pool) == expected
        assert not isinstance(pool, SummingExecutor)


def test_few_terms_are_kept():
    """One per level, and those being added."""

    class Counted:
        count = most = 0

        def __init__(self):
            Counted.count += 1
            Counted.most = max(Counted.most, Counted.count)

        def __del__(self):
            Counted.count -= 1

        def __add__(self, other):
            return Counted()

    tree_sum(Counted() for _ in range(FAN_IN**2 + 1))
    assert Counted.most <= 6

"""A length along rows and along columns, or one number for both."""

import pytest

from mtdcore._base.typing import pair, plain


@pytest.mark.parametrize("lengths", [(1, 187), (5, 3), (4, 4)])
def test_no_length_is_lost(lengths):
    assert pair(plain(*lengths)) == lengths


def test_equal_lengths_are_one_number():
    assert plain(4, 4) == 4
    assert pair(4) == (4, 4)

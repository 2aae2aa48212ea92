"""Damaged files of every kind (row 19): read, or refused with an error of ours; no crash, no hang, memory capped."""

import pytest

KINDS = 22  # in specimens.py

for package in ("torch", "mrcfile", "tifffile"):
    pytest.importorskip(package)


@pytest.fixture
def fuzz(run_script, tmp_path):
    """What so many cases of every kind came to."""

    def run(cases, seed):
        found = run_script("fuzzing.py", tmp_path, cases, seed)
        assert len(found) == KINDS
        assert all(kind["cases"] == cases for kind in found)
        return found

    return run


def test_a_few_cases_of_every_reader(fuzz):
    assert all(kind["refused"] > 0 for kind in fuzz(4, 1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_cases(fuzz, seed):
    """4 x 22 x 120 = 10,560."""
    assert all(kind["refused"] > 40 for kind in fuzz(120, seed))

"""Quotas of control groups, of both versions, nested, and seen from inside a container."""

import os

import pytest

from mtdcore._base import cores


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A process with eight cores, and control groups that a test may write."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "_MOUNTED", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "_MINE", tmp_path / "mine")

    def make(mine, **files):
        (tmp_path / "mine").write_text(mine)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return cores.usable_cores()

    return make


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100000 100000", 1),
        ("150000 100000", 2),
        ("20000 100000", 1),
        ("max 100000", 8),
        ("1600000 100000", 8),
        ("broken", 8),
    ],
)
def test_version_2(system, text, expected):
    assert system("0::/\n", **{"cpu.max": text}) == expected


def test_the_tightest_of_nested_groups_counts(system):
    files = {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000", "a/b/c/cpu.max": "500000 100000"}
    assert system("0::/a/b/c\n", **files) == 3


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
def test_version_1(system, controllers):
    files = {
        f"{controllers}/job/cpu.cfs_quota_us": "250000",
        f"{controllers}/job/cpu.cfs_period_us": "100000",
    }
    assert system(f"3:cpuset:/\n2:{controllers}:/job/step\n", **files) == 3


def test_version_1_in_a_container_and_without_a_limit(system):
    """The path is that of the host, the group is mounted as the root."""
    files = {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}
    assert system("2:cpu,cpuacct:/docker/0123\n", **files) == 2
    assert system("2:cpu,cpuacct:/docker/0123\n", **{"cpu/cpu.cfs_quota_us": "-1"}) == 8


def test_no_control_groups(system, tmp_path):
    assert system("") == 8
    (tmp_path / "mine").unlink()
    assert cores.usable_cores() == 8

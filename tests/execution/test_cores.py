"""How many threads are used: no more cores than the affinity names, no more time than the control groups allow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onnxembed.execution import cores
from onnxembed.execution.cores import available_threads, cpu_quota


@pytest.fixture(autouse=True)
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No control groups on 16 cores; the tests make some."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    monkeypatch.setattr(cores, "OWN", tmp_path / "own")
    return tmp_path


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


def test_threads_are_the_cores_of_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5, 8}, raising=False)
    assert available_threads() == 3


def test_threads_are_all_cores_where_there_is_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert available_threads() == 6
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert available_threads() == 1


@pytest.mark.parametrize(
    ("limit", "threads"),
    [
        ("max 100000\n", 16),
        ("400000 100000\n", 4),
        ("250000 100000\n", 3),
        ("10000 100000\n", 1),
        ("9900000 100000\n", 16),
        ("nonsense", 16),
    ],
)
def test_threads_fit_a_containers_share_of_cpu_time(groups: Path, limit: str, threads: int) -> None:
    write(groups, own="0::/\n", cpu__max=limit)
    assert available_threads() == threads


@pytest.mark.parametrize(("quota", "threads"), [("-1\n", 16), ("150000\n", 2)])
def test_the_first_version_of_control_groups(groups: Path, quota: str, threads: int) -> None:
    write(groups, own="7:memory:/\n4:cpu,cpuacct:/\n0::/\n")
    write(groups / "cpu", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000\n")
    assert available_threads() == threads


def test_a_service_has_a_group_further_down_and_the_least_of_all_around_it(groups: Path) -> None:
    write(groups, own="0::/system.slice/search.service\n", cpu__max="max 100000\n")
    write(groups / "system.slice", cpu__max="800000 100000\n")
    write(groups / "system.slice/search.service", cpu__max="300000 100000\n")
    assert cpu_quota() == 3
    write(groups / "system.slice", cpu__max="200000 100000\n")
    assert cpu_quota() == 2


def test_the_group_of_another_mount_is_not_looked_for_outside(groups: Path) -> None:
    write(groups / "root", cpu__max="100000 100000\n")
    write(groups, own="0::/../outside\nno group\n", cpu__max="500000 100000\n")
    assert cpu_quota() == 5


@pytest.mark.skipif(not os.access("/sys/fs/cgroup/cpu", os.W_OK), reason="needs a control group of its own to make")
def test_a_real_group_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in its own process, which is moved into a group with the time of one core."""
    group = Path("/sys/fs/cgroup/cpu/onnxembed-test")
    try:
        group.mkdir(exist_ok=True)
        (group / "cpu.cfs_quota_us").write_text("100000")
    except OSError as error:
        pytest.skip(f"needs a control group of its own to make: {error}")
    program = (
        f"open('{group}/cgroup.procs', 'w').write('0')\n"
        "from onnxembed.execution.cores import available_threads, cpu_quota\n"
        "print(available_threads(), cpu_quota())"
    )
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    finally:
        group.rmdir()
    assert done.stdout == "1 1.0\n"

"""How many cores this process may use, by its affinity and the CPU time of its control groups."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def available_threads() -> int:
    """The number of cores this process may use."""
    return math.ceil(min(usable_cores(), cpu_quota()))


def usable_cores() -> int:
    """The number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota() -> float:
    """The CPU time that this process may use, in cores: the least that its groups allow; inf if there is no limit.

    A container sees its own group as the root; a systemd service has one further down. Both versions of Linux's
    control groups are read (see the kernel's cgroup-v2.rst, and sched-bwc.rst for version 1).
    """
    quotas = [math.inf]
    for group, files in _groups():
        with suppress(OSError, ValueError):  # there is no such file, or no limit ("max" or -1)
            quota, period = (int(number) for file in files for number in (group / file).read_text().split())
            if quota > 0:
                quotas.append(quota / period)
    return min(quotas)


def _groups() -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The control groups that this process is in, each with the names of its files for quota and period."""
    lines = []
    with suppress(OSError):
        lines = OWN.read_text(encoding="utf-8").splitlines()
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUP / "cpu" if controllers else CGROUP
        files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        group = root / path.strip("/")
        while group != root and group.is_relative_to(root):
            yield group, files
            group = group.parent
        yield root, files

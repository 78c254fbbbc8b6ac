"""Installed size, number of distributions and import time of a package, in the environment that runs this file.

Usage: footprint.py REQUIREMENT MODULE [--words], for example 'onnxembed[cpu]' onnxembed. Prints a JSON object, or a
line with --words. Counts the files of the distribution and of everything it requires, and nothing else in the
environment.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from importlib.metadata import Distribution, distribution
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

REPEATS = 7


def main() -> None:
    requirement, module, *flags = sys.argv[1:]
    distributions = closure(requirement)
    total = sum(map(size, distributions.values())) + linked_size(module)
    seconds_to_import = import_seconds(module)
    if "--words" in flags:
        print(
            f"{module:<16} {total / 1e6:6.0f} MB installed  {len(distributions):3d} distributions  "
            f"{seconds_to_import:5.2f} s to import"
        )
    else:
        figures = {"bytes": total, "distributions": len(distributions), "import_seconds": seconds_to_import}
        print(json.dumps(figures))


def closure(requirement: str) -> dict[str, Distribution]:
    """The distribution and everything it requires here, by name; a missing one raises PackageNotFoundError."""
    distributions_by_name: dict[str, Distribution] = {}
    seen: set[str] = set()
    waiting = [Requirement(requirement)]
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        name = wanted.name.lower().replace("_", "-")
        distributions_by_name[name] = distribution(wanted.name)
        for line in distributions_by_name[name].requires or []:
            needed = Requirement(line)
            if any(needed.marker is None or needed.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                waiting.append(needed)
    return distributions_by_name


def size(installed: Distribution) -> int:
    """Bytes of a distribution's files."""
    paths = {Path(str(file.locate())) for file in installed.files or []}
    return sum(path.stat().st_size for path in paths if path.is_file())


def linked_size(module: str) -> int:
    """Bytes of a package that is installed as a link to its source, outside the distribution's files."""
    spec = find_spec(module)
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    if folder.is_relative_to(sys.prefix):
        return 0
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def import_seconds(module: str) -> float:
    """Seconds that `import module` adds to the start of Python: medians, after a first import writes the bytecode."""
    seconds(f"import {module}")
    bare = statistics.median(seconds("pass") for _ in range(REPEATS))
    return statistics.median(seconds(f"import {module}") for _ in range(REPEATS)) - bare


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

"""The lowest releases that pyproject.toml allows, as constraints for pip: lowest_versions.py EXTRA...

The lowest bound of each requirement, and of those of the extras, is taken in its newest patch: `numpy>=2.0` is 2.0.*.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[[^]]*\])?>=(?P<release>\d+\.\d+)")


def lowest(requirements: Iterable[str]) -> Iterator[str]:
    """A constraint for each requirement with a lowest release; those without one, as the project itself, have none."""
    for requirement in requirements:
        if match := REQUIREMENT.match(requirement):
            yield f"{match['name']}=={match['release']}.*"


def main(extras: list[str]) -> None:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"]]
    for extra in extras:
        requirements += project["optional-dependencies"][extra]
    print(*lowest(requirements), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])

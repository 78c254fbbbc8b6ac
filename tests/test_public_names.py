"""The public names of the package."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import onnxembed

DUNDERS = {"__version__"}


def test_all_lists_what_is_visible() -> None:
    modules = {name for name, value in vars(onnxembed).items() if inspect.ismodule(value)}
    visible = {name for name in vars(onnxembed) if not name.startswith("_")} - modules
    assert {*onnxembed.__all__} == visible | DUNDERS


def test_all_is_sorted_and_has_no_name_twice() -> None:
    assert onnxembed.__all__ == sorted(set(onnxembed.__all__))


def test_every_public_name_is_documented() -> None:
    for name in set(onnxembed.__all__) - DUNDERS:
        value = getattr(onnxembed, name)
        assert inspect.getdoc(value), name
        members = [(key, member) for key, member in vars(value).items() if not key.startswith("_")]
        for key, member in members:
            if inspect.isfunction(member) or isinstance(member, property):
                assert inspect.getdoc(member), f"{name}.{key}"


def test_the_version_is_the_one_that_the_package_is_built_with() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    path = project["tool"]["hatch"]["version"]["path"]
    source = (Path(__file__).parents[1] / path).read_text()
    assert re.findall(r'^__version__ = "(.+)"$', source, re.MULTILINE) == [onnxembed.__version__]

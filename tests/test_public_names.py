"""The public names of the package."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest

import onnxembed
from onnxembed import public

DUNDERS = {"__version__"}


def test_all_lists_what_is_visible() -> None:
    visible = {name for name in vars(public) if not name.startswith("_")}
    assert {*onnxembed.__all__} == visible | DUNDERS
    assert {*dir(onnxembed)} == {*onnxembed.__all__, "commands", "errors", "manifest"}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'onnxembed' has no attribute 'Embedder'$"):
        _ = onnxembed.Embedder  # type: ignore[attr-defined]
    assert not hasattr(onnxembed, "__wrapped__")


def test_all_is_sorted_and_has_no_name_twice() -> None:
    assert public.__all__ == sorted(set(public.__all__))


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

"""The public names of the package."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import onnxembed

DUNDERS = {"__version__"}


def imports() -> set[tuple[str, str]]:
    """The modules and names that `onnxembed/__init__.py` imports for type checkers."""
    tree = ast.parse(Path(onnxembed.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    found = [
        (node.module, alias.name) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    return {(str(module), name) for module, name in found}


def test_what_type_checkers_see_is_what_programs_get() -> None:
    for module, name in imports():
        if module == "onnxembed":
            assert getattr(onnxembed, name) is importlib.import_module(f"onnxembed.{name}")
        else:
            assert getattr(onnxembed, name) is getattr(importlib.import_module(module), name)
    assert {name for module, name in imports() if module != "onnxembed"} == {*onnxembed.__all__} - DUNDERS


def test_all_and_the_public_modules_are_what_is_visible() -> None:
    modules = {name for module, name in imports() if module == "onnxembed"}
    assert modules == {"commands", "errors", "manifest"}
    assert {*dir(onnxembed)} == {*onnxembed.__all__} | modules


def test_a_name_that_was_used_is_kept() -> None:
    """Python asks the module's __getattr__ for what the module does not have, which takes longer."""
    used = onnxembed.sparse_dot
    assert vars(onnxembed)["sparse_dot"] is used


def test_an_unknown_name_is_an_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match=r"^module 'onnxembed' has no attribute 'OnnxEmbeder'$"):
        _ = onnxembed.OnnxEmbeder  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'OnnxEmbeder' from 'onnxembed'"):
        exec("from onnxembed import OnnxEmbeder")
    assert not hasattr(onnxembed, "__wrapped__")


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

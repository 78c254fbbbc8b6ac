"""Forms that the code does not use, found in its syntax; each search is tried on samples that have the form."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(file for folder in ("src", "scripts", "tests") for file in (ROOT / folder).rglob("*.py"))

VAGUE_NAMES = {"common", "helper", "helpers", "misc", "util", "utils"}

# Spelled so that this file is not found.
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")

Node = TypeVar("Node", bound=ast.AST)


def unpacked_vars(source: str) -> Iterator[int]:
    """f(**vars(x)): a renamed field is noticed only at run time."""
    for call in _nodes(source, ast.Call):
        for keyword in call.keywords:
            if keyword.arg is None and _calls(keyword.value, "vars"):
                yield call.lineno


def multiplied_by_condition(source: str) -> Iterator[int]:
    """A list or a text multiplied by a condition: an `if` says it in words."""
    for product in _nodes(source, ast.BinOp):
        if isinstance(product.op, ast.Mult):
            for factor, other in ((product.left, product.right), (product.right, product.left)):
                # Arrays are multiplied by comparisons, too, but never by these.
                plain = _calls(factor, "bool") or isinstance(factor, ast.BoolOp) or _is_not(factor)
                if plain or (isinstance(factor, ast.Compare) and _is_sequence(other)):
                    yield product.lineno


def called_condition(source: str) -> Iterator[int]:
    """(a if c else b)(...): what is called is hidden in a condition."""
    return (call.lineno for call in _nodes(source, ast.Call) if isinstance(call.func, ast.IfExp))


def unfinished(source: str) -> Iterator[int]:
    """A note of what is still to do."""
    return (number for number, line in enumerate(source.splitlines(), start=1) if UNFINISHED.search(line))


def _nodes(source: str, kind: type[Node]) -> Iterator[Node]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, kind))


def _calls(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _is_not(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _is_sequence(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str | bytes)
    return isinstance(node, ast.List | ast.Tuple | ast.JoinedStr)


Search = Callable[[str], Iterator[int]]

SEARCHES: dict[Search, tuple[list[str], list[str]]] = {
    unpacked_vars: (
        ["f(**vars(x))", "f(1, a=2, **vars(x.y))", "replace(x, **vars(y))"],
        ["f(**x)", "vars(x)", "f(vars(x))", "f(a=vars(x))"],
    ),
    multiplied_by_condition: (
        [
            "['a'] * (b == c)",
            "(b in c) * ['a']",
            "'a' * bool(b)",
            "a * bool(b)",
            "f'{a}' * (b is not None)",
            "a * (b and c)",
            "a * (not b)",
            "('a', 'b') * (c > 1)",
        ],
        ["['a'] * 3", "'a' * len(b)", "array * (array > 0)", "a * b", "(a == b) * 1.5"],
    ),
    called_condition: (
        ["(a if c else b)(1)", "(a.b if c else d.e)()"],
        ["a(b if c else d)", "a(1) if c else b(1)", "(a if c else b).value"],
    ),
    unfinished: (["x = 1  # TO" + "DO: later", '"""FIX' + 'ME"""'], ["todo = 1", "# to do"]),
}
"""Each search with samples that it must find, and samples that it must not."""


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.__name__)
def test_the_search_finds_what_it_should(search: Search) -> None:
    bad, good = SEARCHES[search]
    for sample in bad:
        assert list(search(f"x = 1\n{sample}\n")) == [2], sample
    for sample in good:
        assert list(search(f"x = 1\n{sample}\n")) == [], sample


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.__name__)
def test_the_form_is_nowhere(search: Search) -> None:
    assert len(FILES) > 200
    places = [f"{file.relative_to(ROOT)}:{line}" for file in FILES for line in search(file.read_text(encoding="utf-8"))]
    assert places == []


def vague(names: list[str]) -> list[str]:
    """The paths with a part that says nothing about the content."""
    return [name for name in names if VAGUE_NAMES & set(Path(name).with_suffix("").parts)]


def test_modules_are_named_for_what_they_hold() -> None:
    assert vague(["a/utils.py", "common/a.py", "b/helpers.py", "a/b.py"]) == [
        "a/utils.py",
        "common/a.py",
        "b/helpers.py",
    ]
    package = ROOT / "src/onnxembed"
    assert vague([str(file.relative_to(package)) for file in package.rglob("*.py")]) == []

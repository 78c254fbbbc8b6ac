"""The keys that the installed reference reads of a model's files, taken from its source."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def keys_of(sources: Iterable[Any], *names: str) -> set[str]:
    """The string keys that the source of modules or classes reads of a dict with one of these names.

    As `names["key"]`, `names.get("key")`, `names.pop("key")` and `"key" in names`.
    """
    return {key for source in sources for key in _keys(ast.parse(_text(source)), names)}


def attributes_of(sources: Iterable[Any], *names: str) -> set[str]:
    """The attributes that the source reads of an object with one of these names: `x.key`, `self.x.key`, `getattr`."""
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse(_text(source))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and _is_named(node.value, names):
                found.add(node.attr)
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "hasattr")
            ):
                target, key, *_ = node.args
                if _is_named(target, names) and isinstance(key, ast.Constant):
                    found.add(str(key.value))
    return found


def parameters_of(function: Callable[..., Any]) -> set[str]:
    """The names of a function's own parameters."""
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = inspect.signature(inspect.unwrap(function)).parameters.values()
    return {each.name for each in parameters if each.kind not in variable} - {"self"}


def _text(source: Any) -> str:
    return inspect.cleandoc("\n" + inspect.getsource(source))


def _is_named(node: ast.expr, names: tuple[str, ...]) -> bool:
    """Whether this is `name` or `anything.name`."""
    return (isinstance(node, ast.Name) and node.id in names) or (isinstance(node, ast.Attribute) and node.attr in names)


def _keys(tree: ast.AST, names: tuple[str, ...]) -> Iterator[str]:
    for node in ast.walk(tree):
        candidates: list[ast.expr] = []
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and _is_named(node.value, names):
            candidates = [node.slice]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_named(node.func.value, names):
            candidates = node.args[:1] if node.func.attr in ("get", "pop", "setdefault") else []
        elif (
            isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In) and _is_named(node.comparators[0], names)
        ):
            candidates = [node.left]
        yield from (key.value for key in candidates if isinstance(key, ast.Constant) and isinstance(key.value, str))

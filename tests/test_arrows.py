"""The rule of arrows: which package may import which. CONTRIBUTING.md draws it; this table decides."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import onnxembed

PACKAGE = Path(onnxembed.__file__).parent

LEAVES = (
    *("errors", "warning", "arrays", "arguments", "atomic", "counting", "progress"),
    *("protobuf", "foreign_errors", "json_file", "user_cache"),
)
"""Modules at the root that everything above may import; see `ALLOWED` for what they import."""

BELOW: dict[str, tuple[str, ...]] = {
    "manifest": (),
    "quantization": (),
    "hub": ("manifest",),
    "execution": (),
    "facts": ("manifest",),
    "recipes": ("manifest",),
    "decisions": ("manifest", "facts", "recipes"),
    "proof.probes": (),
    "tokenizer": ("manifest", "facts", "decisions", "proof.probes"),
    "loading": ("manifest", "hub", "execution", "facts", "recipes", "decisions", "tokenizer"),
    "runtime": ("manifest", "quantization", "hub", "execution", "tokenizer", "loading"),
    "proof": ("manifest", "execution", "tokenizer", "runtime", "proof.probes"),
    "similarity": ("manifest", "runtime"),
    "rescoring": ("quantization", "similarity"),
    "embedder": ("manifest", "quantization", "hub", "execution", "loading", "runtime", "proof", "similarity"),
    "reranker": ("manifest", "hub", "execution", "tokenizer", "loading", "runtime", "proof"),
    "compat": ("manifest", "recipes", "tokenizer", "runtime", "embedder", "reranker"),
    "files": ("quantization", "runtime"),
    "bulk": ("manifest", "quantization", "hub", "loading", "runtime", "embedder"),
    "export.checkpoint": ("manifest", "hub", "facts", "decisions"),
    "export.graph": ("manifest", "execution", "facts", "export.checkpoint"),
    "export.architectures": ("export.checkpoint", "export.graph"),
    "export.tokenizer": ("facts", "decisions", "tokenizer", "export.architectures"),
    "export.heads": (
        *("manifest", "facts", "decisions", "tokenizer"),
        *("export.checkpoint", "export.graph", "export.architectures"),
    ),
    "export.engines": (
        *("manifest", "facts", "decisions"),
        *("export.checkpoint", "export.graph", "export.architectures"),
    ),
    "export.artifact": (
        *("manifest", "hub", "facts", "decisions", "loading", "proof"),
        *("export.checkpoint", "export.graph", "export.heads"),
    ),
    "export.quantize": (
        *("manifest", "execution", "tokenizer", "runtime"),
        *("proof.probes", "export.checkpoint", "export.graph", "export.artifact"),
    ),
    "export": (
        *("manifest", "hub", "facts", "recipes", "decisions", "tokenizer", "loading"),
        *("export.checkpoint", "export.graph", "export.architectures", "export.tokenizer"),
        *("export.heads", "export.engines", "export.artifact", "export.quantize"),
    ),
    "explain": (
        *("manifest", "hub", "execution", "facts", "decisions", "tokenizer", "loading", "runtime"),
        *("similarity", "embedder", "reranker", "export.checkpoint", "export.graph"),
        *("export.architectures", "export.heads", "export.artifact"),
    ),
    "verify": (
        *("manifest", "hub", "execution", "facts", "recipes", "decisions", "tokenizer", "runtime"),
        *("proof", "proof.probes", "similarity", "embedder", "reranker", "files"),
        *("proof.probes", "export.checkpoint", "export.architectures", "export.engines"),
    ),
    "serve": ("manifest", "hub", "execution", "tokenizer", "runtime", "proof", "proof.probes"),
    "commands": (
        *("manifest", "hub", "execution", "facts", "recipes", "decisions", "loading"),
        *("proof", "export", "export.artifact", "verify"),
    ),
    "cli": (
        *(
            "manifest",
            "proof",
            "quantization",
            "hub",
            "execution",
            "recipes",
            "loading",
            "embedder",
            "reranker",
            "files",
            "bulk",
            "explain",
            "serve",
            "commands",
        ),
    ),
}
"""What each package may import beside itself and the leaves, lowest first; `export` is the modules at its root.

The table is tight: an arrow that is not drawn today is a decision to take, in a line of this table.
"""

ALLOWED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(LEAVES, ("errors",)),
    "json_file": ("errors", "foreign_errors"),
    **{name: (*below, *LEAVES) for name, below in BELOW.items()},
}


class Arrow(NamedTuple):
    """One import, by the line that makes it."""

    line: str
    source: str
    target: str


def rooms(package: Path) -> dict[str, str]:
    """The room of each module: the longest entry of the table that its dotted name begins with, else its own name."""
    modules = [".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")]
    return {module.removesuffix(".__init__"): room(module.removesuffix(".__init__")) for module in modules}


def room(module: str) -> str:
    names = [name for name in ALLOWED if f"{module}.".startswith(f"{name}.")]
    return max(names, key=len, default=module)


def arrows(package: Path) -> Iterator[Arrow]:
    """Every import of one room by another, those inside functions and under TYPE_CHECKING included."""
    known = rooms(package)
    for path in sorted(package.rglob("*.py")):
        module = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            for target in targets(node, known):
                if room(module) != room(target):
                    yield Arrow(f"{path.relative_to(package)}:{node.lineno}", room(module), room(target))


def targets(node: ast.Import | ast.ImportFrom, known: Mapping[str, str]) -> Iterator[str]:
    """The modules of the package that a statement imports, without the package's own name before them."""
    if isinstance(node, ast.Import):
        yield from (name.removeprefix("onnxembed.") for name in names(node) if name.startswith("onnxembed."))
    elif node.level:
        yield f"a relative import ({'.' * node.level}{node.module or ''})"
    elif f"{node.module}.".startswith("onnxembed."):
        base = str(node.module).removeprefix("onnxembed").removeprefix(".")
        for name in names(node):
            inner = f"{base}.{name}".removeprefix(".")
            if inner in known or base:
                yield inner if inner in known else base


def names(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names]


def broken(package: Path) -> list[str]:
    return [
        f"{arrow.line} imports {arrow.target}, which {arrow.source} may not"
        for arrow in arrows(package)
        if arrow.source not in ("", "__init__", "__main__") and arrow.target not in ALLOWED.get(arrow.source, ())
    ]


def test_every_import_follows_the_table() -> None:
    assert broken(PACKAGE) == []


def test_every_module_has_a_room_in_the_table() -> None:
    strays = sorted({name for name in rooms(PACKAGE).values() if name not in ALLOWED})
    assert strays == ["__init__", "__main__"]


def test_the_table_has_no_circle() -> None:
    """Each room may import only rooms that stand before it."""
    order = list(ALLOWED)
    for name, below in ALLOWED.items():
        if name not in LEAVES:
            assert all(order.index(other) < order.index(name) for other in below if other != name), name


def test_the_table_names_rooms_that_exist() -> None:
    assert {*ALLOWED} <= {*rooms(PACKAGE).values()}


def test_the_table_is_tight() -> None:
    """An arrow that nobody draws any more leaves the table."""
    drawn = {(arrow.source, arrow.target) for arrow in arrows(PACKAGE)}
    assert [(name, other) for name, below in BELOW.items() for other in below if (name, other) not in drawn] == []


@pytest.mark.parametrize(
    ("statement", "target"),
    [
        ("from onnxembed.export.pipeline import export", "export"),
        ("from onnxembed.cli import embed", "cli"),
        ("import onnxembed.verify.verify", "verify"),
        ("from onnxembed import embedder", "embedder"),
        ("def f():\n    from onnxembed.facts.facts import read_facts", "facts"),
    ],
)
def test_a_forbidden_import_is_found_by_its_line(tmp_path: Path, statement: str, target: str) -> None:
    for name in ("runtime", "export", "cli", "verify", "facts"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    for name in ("embedder", "export/pipeline", "cli/embed", "verify/verify", "facts/facts"):
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "runtime/open_model.py").write_text(f"import os\n{statement}\n")
    line = 2 + statement.count("\n")
    assert broken(tmp_path) == [f"runtime/open_model.py:{line} imports {target}, which runtime may not"]


def test_a_relative_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime/open_model.py").write_text("from ..export import pipeline\n")
    assert broken(tmp_path) == ["runtime/open_model.py:1 imports a relative import (..export), which runtime may not"]

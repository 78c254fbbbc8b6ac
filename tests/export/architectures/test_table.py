"""All tables keyed by model_type name the same families, so a new family cannot be forgotten in one of them."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

from onnxembed.decisions.reranking import HEAD_POOLING_KEYS
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.tokenizer.changes import CLASS_OPTIONS
from onnxembed.tokenizer.vocabularies import CLASSES
from tiny_heads import MASKED_LM

TESTS = Path(__file__).parent


def strings(files: Iterable[Path]) -> set[str]:
    """All string constants in these Python files."""
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


# Table -> the families it must name, and those it names.
BUILT = {name for name, row in ARCHITECTURES.items() if row.build is not None}
TABLES: dict[str, tuple[set[str], set[str]]] = {
    "facts.model_types.MODEL_TYPES": ({*ARCHITECTURES}, {*MODEL_TYPES}),
    "export.architectures.ARCHITECTURES": ({*MODEL_TYPES}, {*ARCHITECTURES}),
    "tests/export/architectures, of families with a builder": (
        BUILT,
        strings(file for file in TESTS.glob("test_*.py") if file.name != Path(__file__).name),
    ),
    "tests/export/engines/test_trace.py, of traced families": (
        {name for name, row in ARCHITECTURES.items() if row.traceable},
        strings([TESTS.parent / "engines/test_trace.py"]),
    ),
    "tests/export/heads/test_reranking.py, of classifiers": (
        {name for name, row in ARCHITECTURES.items() if row.classifier},
        strings([TESTS.parent / "heads/test_reranking.py"]),
    ),
    "tests/helpers/tiny_heads.py: MASKED_LM": (
        {name for name, row in ARCHITECTURES.items() if row.masked_lm},
        {*MASKED_LM, "modernbert"},  # which has a test of its own in test_sparse
    ),
    "tests/export/graph/test_packed.py, of packed families": (
        {name for name, row in ARCHITECTURES.items() if row.packable},
        strings([TESTS.parent / "graph/test_packed.py"]),
    ),
}


@pytest.mark.parametrize("table", TABLES)
def test_no_table_forgets_a_family(table: str) -> None:
    needed, named = TABLES[table]
    forgotten = sorted(needed - named)
    assert not forgotten, f"{table} has no {', '.join(forgotten)}"


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_row_can_be_exported(model_type: str) -> None:
    row = ARCHITECTURES[model_type]
    assert row.build is not None or row.traceable, f"{model_type} has no builder and is not traced"
    assert row.build is not None or not row.packable, f"{model_type} is packed without a builder"
    assert row.tokenizer_class is None or row.tokenizer_class in CLASSES


@pytest.mark.parametrize("partial", [HEAD_POOLING_KEYS, {name: 0 for name in CLASS_OPTIONS if name.islower()}])
def test_a_table_of_exceptions_names_known_families(partial: dict[str, object]) -> None:
    assert not partial.keys() - ARCHITECTURES.keys()

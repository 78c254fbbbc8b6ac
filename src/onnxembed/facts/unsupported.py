"""What the reference reads of a model's files, and onnxembed does not do: it stops, because it would change vectors."""

from __future__ import annotations

from pathlib import Path

from onnxembed.errors import UnsupportedError
from onnxembed.facts.json_file import JsonObject


def refuse_split_tokens(file: Path, tokenizer_config: JsonObject) -> None:
    """Raise UnsupportedError for a tokenizer that splits special tokens in texts, which tokenizer.json cannot say."""
    if tokenizer_config.get("split_special_tokens") not in (None, False):
        raise UnsupportedError(f"{file} sets split_special_tokens, which tokenizer.json cannot hold")


def refuse_truncated_vectors(file: Path, config: JsonObject) -> None:
    """Raise UnsupportedError for vectors that sentence-transformers cuts to fewer numbers."""
    if (dimension := config.get("truncate_dim")) is not None:
        raise UnsupportedError(
            f"{file} sets truncate_dim to {dimension!r}, which is not built into a graph: delete the key, and ask for "
            f"dimensions={dimension} (--dimensions {dimension}) when you embed"
        )

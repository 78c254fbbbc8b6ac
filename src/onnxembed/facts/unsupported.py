"""What the reference reads of a model's files, and onnxembed does not do: it stops, because it would change vectors."""

from __future__ import annotations

from pathlib import Path

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts.json_file import JsonObject, read_json

ADAPTER_CONFIG = "adapter_config.json"


def refuse_adapter(folder: Path) -> None:
    """Raise UnsupportedError for an adapter beside the weights, or without them, which transformers would apply."""
    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        return
    config = read_json(file)
    kind, base = config.get("peft_type"), config.get("base_model_name_or_path")
    if kind is None:
        raise ModelFilesError(f"{file} is an adapter's, and names no peft_type: merge it into the weights first")
    raise UnsupportedError(
        f"{folder} is a {kind} adapter of {base} ({ADAPTER_CONFIG}), which transformers applies to the weights: merge "
        "it first, where peft is: model = SentenceTransformer(FOLDER); "
        "model[0].auto_model = PeftModel.from_pretrained(BASE, FOLDER).merge_and_unload(); model.save(NEW_FOLDER)"
    )


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

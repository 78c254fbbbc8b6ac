"""A checkpoint in the form that transformers' own classes load, without remote code.

Some models were published with their own code, and the class that transformers has since added reads a different
config: with the published one it fails, or computes other vectors. If the class can compute the model, the config is
translated; if not, there is no reference to compare with.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from onnxembed.errors import NoReferenceError
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.facts.adapter import ADAPTER_CONFIG
from onnxembed.facts.facts import read_facts
from onnxembed.json_file import read_json, read_optional_json, write_json


@contextmanager
def stock_folder(checkpoint: Path) -> Iterator[Path]:
    """A folder that transformers loads: the checkpoint, or links to its files beside a translated config.json.

    Raises NoReferenceError if transformers has no class that computes the model.
    """
    facts = read_facts(checkpoint)
    architecture = ARCHITECTURES.get(facts.model_type)
    if architecture is None or architecture.reference_config is None:
        yield checkpoint
        return
    translated = architecture.reference_config(facts.config)
    config = facts.config_file.relative_to(checkpoint)
    with _with_file(checkpoint, config, translated) as folder:
        yield folder


@contextmanager
def with_adapter(checkpoint: Path, base: Path | None = None) -> Iterator[Path]:
    """A folder whose LoRA adapter, if it has one, names its base by a path: where the weights lie.

    `base` is that folder if the base came from the hub. Raises NoReferenceError without peft, by which transformers
    applies an adapter.
    """
    facts = read_facts(checkpoint, base)
    if facts.lora is None:
        yield checkpoint
        return
    if find_spec("peft") is None:
        raise NoReferenceError("the reference applies the adapter with peft, which is not installed: pip install peft")
    place = facts.transformer_folder.relative_to(checkpoint)
    content = read_json(facts.transformer_folder / ADAPTER_CONFIG)
    with _with_file(checkpoint, place / ADAPTER_CONFIG, content) as folder:
        beside = facts.weights_folder == facts.transformer_folder
        weights = folder / place if beside else facts.weights_folder.resolve()
        write_json(folder / place / ADAPTER_CONFIG, {**content, "base_model_name_or_path": str(weights)})
        yield folder


@contextmanager
def with_class(checkpoint: Path) -> Iterator[Path]:
    """A folder whose config_sentence_transformers.json names its class, as sentence-transformers needs it.

    PyLate did not write it at first; the model is the same as one of its later releases.
    """
    file = Path("config_sentence_transformers.json")
    config, facts = read_optional_json(checkpoint / file), read_facts(checkpoint)
    if not config or config.get("model_type") or facts.sentence_transformers_class is None:
        yield checkpoint
        return
    with _with_file(checkpoint, file, {**config, "model_type": facts.sentence_transformers_class}) as folder:
        yield folder


@contextmanager
def _with_file(checkpoint: Path, file: Path, content: Mapping[str, Any]) -> Iterator[Path]:
    """A folder of links to the checkpoint's files, beside one with another content."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "checkpoint"
        shutil.copytree(checkpoint, folder, copy_function=_link)
        (folder / file).unlink()
        write_json(folder / file, content)
        yield folder


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(Path(source).resolve())

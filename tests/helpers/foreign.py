"""Models with an ONNX graph that nothing records, as other exporters leave them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from click.testing import CliRunner
from onnx import helper

from onnxembed import OnnxEmbedder
from onnxembed.cli import cli
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import FILE_NAME
from tiny import TEXTS

SHORT_TEXTS = TEXTS[:-1]
"""The tiny models' texts without the one that is cut, which is warned of."""

SENTENCE_FILES = ("modules.json", "1_Pooling", "sentence_bert_config.json", "config_sentence_transformers.json")


def foreign(checkpoint: Path, folder: Path, *names: str, **options: Any) -> Path:
    """The checkpoint's folder with graphs that nothing records: the exporter's, without its manifest.

    `names` are what becomes of the outputs sentence_embedding and token_embeddings; "" takes one out.
    """
    export(checkpoint, folder, Options(**options))
    (folder / FILE_NAME).unlink()
    if names:
        change(
            folder,
            lambda graph: rename(graph, dict(zip(("sentence_embedding", "token_embeddings"), names, strict=True))),
        )
    return folder


def rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for value in list(graph.output):
        name = names.get(value.name, value.name)
        if not name:
            graph.output.remove(value)
        elif name != value.name:
            graph.node.append(helper.make_node("Identity", [value.name], [name]))
            value.name = name


def change(folder: Path, change: Callable[[onnx.GraphProto], Any], file: str = "onnx/model.onnx") -> None:
    model = onnx.load(folder / file)
    change(model.graph)
    onnx.save(model, folder / file)


def at_root(folder: Path, name: str = "model.onnx") -> Path:
    """The layout with the graph next to the tokenizer, as optimum writes it."""
    (folder / "onnx/model.onnx").rename(folder / name)
    (folder / "onnx").rmdir()
    return folder


def without_sentence_files(folder: Path) -> Path:
    for name in SENTENCE_FILES:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    return folder


def command(*arguments: str | Path) -> str:
    """What a command of onnxembed prints; it must not fail."""
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def vectors(model: Path | str, **options: Any) -> Any:
    """The vectors of SHORT_TEXTS."""
    with OnnxEmbedder(model, **options) as embedder:
        return embedder.encode(SHORT_TEXTS)

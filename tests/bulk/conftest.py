"""Models and runs for the tests of bulk jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from onnxembed import OnnxEmbedder
from onnxembed.export.pipeline import export
from tiny_heads import write_bge_m3


@pytest.fixture(scope="session")
def many_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bge-m3: dense vectors, sparse embeddings and vectors of tokens."""
    folder = tmp_path_factory.mktemp("kinds")
    write_bge_m3(folder / "checkpoint")
    export(folder / "checkpoint", folder / "m3-onnx")
    return folder / "m3-onnx"


@pytest.fixture(scope="module")
def model(artifact: Path) -> Iterator[OnnxEmbedder]:
    with OnnxEmbedder(artifact, threads=2) as model:
        yield model


@pytest.fixture
def embed(artifact: Path, tmp_path: Path) -> Callable[..., Any]:
    """Runs a job into the folder out of the test's own folder; returns its counts."""
    pytest.importorskip("pyarrow", reason="needs the extra [bulk]")
    from jobs import Silent
    from onnxembed.bulk.making import VectorOptions
    from onnxembed.bulk.rows import Columns
    from onnxembed.bulk.run import JobOptions, embed_files

    def embed(
        *inputs: object,
        column: str = "text",
        id_column: str | None = None,
        keep: Sequence[str] = (),
        folder: Path = artifact,
        out: str = "out",
        watch: Any = None,
        max_length: int | None = None,
        vectors: VectorOptions | None = None,
        **options: Any,
    ) -> Any:
        _, summary = embed_files(
            lambda: OnnxEmbedder(folder, threads=2, max_length=max_length),
            [str(tmp_path / str(name)) for name in inputs],
            tmp_path / out,
            columns=Columns(column, id_column, tuple(keep)),
            vectors=vectors or VectorOptions(),
            options=JobOptions(**options),
            watch=watch or Silent(),
        )
        return summary

    return embed

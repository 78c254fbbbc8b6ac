"""The arguments of OnnxEmbedder that decide how a model is opened wherever its batches are embedded."""

from __future__ import annotations

from typing import Literal, TypedDict

from onnxembed.manifest import Precision


class ModelOptions(TypedDict, total=False):
    """Some arguments of OnnxEmbedder, which describes them."""

    precision: Literal["auto"] | Precision
    onnx_file: str | None
    providers: str
    threads: int | None
    max_length: int | None
    revision: str | None
    cache_dir: str | None
    local_files_only: bool

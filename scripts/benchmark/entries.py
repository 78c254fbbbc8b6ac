"""The lines of the table: which system, with which settings, in which environment, with which batch sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmark.models import Model, traced, with_limit, without_packing
from onnxembed.errors import ProviderError
from onnxembed.execution.opening import bf16_way

Device = Literal["cpu", "cuda"]

NOT_INSTALLED = "not installed"

OLD_TRANSFORMERS = "its optimum-onnx needs transformers < 4.58, which cannot be installed beside transformers 5"


@dataclass(frozen=True)
class Entry:
    """A system under test. `batch` is its default batch size; `batches` are tried to find the fastest.

    `why_not` explains the system's own message if it cannot be loaded.
    """

    label: str
    system: str
    settings: Mapping[str, Any]
    python: Path
    kind: str
    batch: int | None = None
    batches: tuple[int, ...] = ()
    why_not: str = ""


@dataclass
class Lines:
    """The entries that can be measured, and why others cannot."""

    entries: list[Entry] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def lines(model: Model, pythons: Mapping[str, Path], threads: int, device: Device, work: Path) -> Lines:
    """All lines for one model; `pythons` maps a system to the Python of its environment, and must have onnxembed's."""
    result = Lines()
    rerank = "-rerank" if model.manifest.reranking else ""
    common = {"threads": threads, "device": device}
    for precision, variant in model.manifest.variants.items():
        forms = {f"onnxembed {precision}": model.artifact}
        if device == "cuda" and variant.packed:
            forms = {f"onnxembed {precision}, packed": model.artifact, f"onnxembed {precision}": without_packing(model)}
        for label, folder in forms.items():
            settings = {**common, "artifact": str(folder), "precision": precision}
            result.entries.append(Entry(label, f"onnxembed{rerank}", settings, pythons["onnxembed"], precision))
    if device == "cpu":
        _bf16(result, model, pythons["onnxembed"], common, rerank)
        _fastembed(result, model, pythons.get("fastembed"), common, work=work, rerank=rerank)
    else:
        result.absent["FastEmbed"] = "not measured on a GPU"
    _sentence_transformers(result, model, pythons, common, rerank)
    return result


def _bf16(result: Lines, model: Model, python: Path, common: Mapping[str, Any], rerank: str) -> None:
    """The fp32 graph, computed in bf16 by the CPU; the Python of onnxembed may lack what computes it, and says so."""
    own = model.manifest.variants
    if "fp32" not in own or "bf16" in own:  # with a graph of its own, bf16 has its line already
        return
    try:
        bf16_way()
    except ProviderError as error:
        result.absent["onnxembed bf16"] = str(error)
        return
    settings = {**common, "artifact": str(model.artifact), "precision": "bf16"}
    result.entries.append(Entry("onnxembed bf16", f"onnxembed{rerank}", settings, python, "bf16"))


def _fastembed(
    result: Lines, model: Model, python: Path | None, common: Mapping[str, Any], *, work: Path, rerank: str
) -> None:
    limit = model.manifest.tokenization.max_length.value
    labels = {f"FastEmbed, cut at {limit} tokens": limit, "FastEmbed, as it comes": None}
    try:
        if python is None:
            raise RuntimeError(NOT_INSTALLED)
        settings = _fastembed_settings(model)
        graph = traced(model, work)
    except (OSError, RuntimeError) as error:
        result.absent |= dict.fromkeys(labels, str(error))
        return
    for label, cut in labels.items():
        folder = str(with_limit(graph, cut, model.checkpoint))
        batches = (1, 8, 32, 256) if cut else ()
        result.entries.append(
            Entry(label, f"fastembed{rerank}", {**common, **settings, "folder": folder}, python, "fp32", 256, batches)
        )


def _fastembed_settings(model: Model) -> dict[str, Any]:
    embedding = model.manifest.embedding
    if embedding is None:
        return {}
    poolings = {"mean": "mean", "cls": "cls", "lasttoken": "last_token"}
    pooling = "+".join(embedding.pooling.value)
    if pooling not in poolings:
        raise RuntimeError(f"has no {pooling} pooling")
    if embedding.dense:
        raise RuntimeError("has no Dense layers")
    return {
        "pooling": poolings[pooling],
        "normalize": embedding.normalize.value,
        "dimension": embedding.dimension,
    }


def _sentence_transformers(
    result: Lines, model: Model, pythons: Mapping[str, Path], common: Mapping[str, Any], rerank: str
) -> None:
    name = "sentence-transformers"
    cuda = common["device"] == "cuda"
    ways: dict[str, tuple[str, dict[str, Any]]] = {}
    if cuda:
        ways["torch fp16, sdpa"] = "fp16", {"dtype": "float16", "attention": "sdpa"}
        ways["torch fp16, flash attention 2"] = "fp16", {"dtype": "float16", "attention": "flash_attention_2"}
    else:
        ways["torch fp32"] = "fp32", {"dtype": "float32", "attention": None}
        ways["torch bf16"] = "bf16", {"dtype": "bfloat16", "attention": None}
    if not rerank:
        onnx: dict[str, Any] = {"dtype": "float32", "attention": None, "backend": "onnx"}
        ways["ONNX backend"] = "fp32", onnx
    for way, (kind, choice) in ways.items():
        # The ONNX backend needs an older transformers, so it may have its own environment.
        onnx_backend = choice.get("backend") == "onnx"
        own = pythons.get(f"{name}-onnx") if onnx_backend else None
        python = own or pythons.get(name)
        label = f"{name}, {way}"
        if python is None:
            result.absent[label] = NOT_INSTALLED
            continue
        settings = {"backend": "torch", **common, **choice, "checkpoint": str(model.checkpoint)}
        batches = (8, 32, 128, 256) if cuda else (1, 8, 32, 128)
        result.entries.append(
            Entry(
                label, f"{name}{rerank}", settings, python, kind, 32, batches, OLD_TRANSFORMERS if onnx_backend else ""
            )
        )

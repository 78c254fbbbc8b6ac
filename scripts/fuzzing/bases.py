"""What is fuzzed: tiny checkpoints of every task, and what onnxembed and sentence-transformers compute with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tiny
import tiny_heads
import tiny_rerankers
from onnxembed import OnnxEmbedder, OnnxReranker

ENCODERS = ("bert", "distilbert", "roberta", "electra")
REFERENCE: dict[str, Any] = {"device": "cpu", "local_files_only": True}


@dataclass(frozen=True)
class Task:
    """How the results of one task are computed by onnxembed and by the reference, from a folder and texts."""

    ours: Callable[[Path, Sequence[str]], Any]
    theirs: Callable[[Path, Sequence[str]], Any]


def write_checkpoints(folder: Path) -> Mapping[str, str]:
    """Write the unchanged checkpoints; returns the task of each by its name."""
    for name in ENCODERS:
        tiny.write_encoder(folder / name, name)
    dense = ((32, 24, "torch.nn.modules.activation.Tanh"),)
    tiny.write_sentence_bert(folder / "dense", dense=dense, prompts={"query": "it is "})
    tiny_rerankers.write_cross_encoder(folder / "cross")
    tiny_heads.write_masked_lm(folder / "splade", pooling={"pooling_strategy": "max"})
    tiny_heads.write_colbert_encoder(folder / "colbert")
    tiny_heads.write_pylate(folder / "pylate")
    tasks = {"cross": "reranking", "splade": "sparse", "colbert": "multi_vector", "pylate": "multi_vector"}
    return {path.name: tasks.get(path.name, "embedding") for path in sorted(folder.iterdir())}


def _embed(folder: Path, texts: Sequence[str]) -> Any:
    with OnnxEmbedder(folder, providers="cpu", threads=1) as model:
        return model.encode(texts)


def _embed_reference(folder: Path, texts: Sequence[str]) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), **REFERENCE).encode(list(texts), show_progress_bar=False)


def _pairs(texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(tiny_rerankers.QUERY, text) for text in texts]


def _rerank(folder: Path, texts: Sequence[str]) -> Any:
    with OnnxReranker(folder, providers="cpu", threads=1) as model:
        return model.score_pairs(_pairs(texts))


def _rerank_reference(folder: Path, texts: Sequence[str]) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder), **REFERENCE).predict(_pairs(texts), show_progress_bar=False)


def _weigh(folder: Path, texts: Sequence[str]) -> Any:
    with OnnxEmbedder(folder, providers="cpu", threads=1) as model:
        found = model.encode_sparse(texts)
        rows = np.zeros(found.shape, np.float32)
        for row, weights in zip(rows, found, strict=True):
            row[weights.indices] = weights.values
        return rows


def _weigh_reference(folder: Path, texts: Sequence[str]) -> Any:
    from sentence_transformers import SparseEncoder

    model: Any = SparseEncoder(str(folder), **REFERENCE)
    options = {"show_progress_bar": False, "convert_to_sparse_tensor": False}
    return model.encode(list(texts), **options).numpy()


def _embed_tokens(folder: Path, texts: Sequence[str]) -> Any:
    with OnnxEmbedder(folder, providers="cpu", threads=1) as model:
        return np.concatenate([*model.embed_multi_vector(texts, kind="document")])


def _embed_tokens_reference(folder: Path, texts: Sequence[str]) -> Any:
    from sentence_transformers import MultiVectorEncoder

    model: Any = MultiVectorEncoder(str(folder), **REFERENCE)
    options = {"show_progress_bar": False, "convert_to_numpy": True}
    return np.concatenate(model.encode_document(list(texts), **options))


TASKS: Mapping[str, Task] = {
    "embedding": Task(_embed, _embed_reference),
    "reranking": Task(_rerank, _rerank_reference),
    "sparse": Task(_weigh, _weigh_reference),
    "multi_vector": Task(_embed_tokens, _embed_tokens_reference),
}

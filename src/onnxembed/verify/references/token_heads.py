"""The reference implementations of sparse and multi-vector embeddings, in float32. Needs the extra [torch].

sentence-transformers' SparseEncoder and MultiVectorEncoder; of bge-m3's heads, FlagEmbedding's formulas on
transformers' encoder. Each gives an array for every text: weights [1, V], or vectors [T, D].
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxembed.facts.facts import read_facts
from onnxembed.manifest import Manifest, Task, TextKind
from onnxembed.verify.references.embedding import contained

FloatArray = NDArray[np.float32]


class HeadsReference(Protocol):
    """One reference implementation."""

    name: str

    def token_ids(self, text: str, kind: TextKind | None) -> list[int]:
        """Token ids of a text, marker included, expansion not."""
        ...

    def embed(self, texts: Sequence[str], kind: TextKind | None) -> list[FloatArray]:
        """The array of each text, each run alone."""
        ...


def heads_reference(checkpoint: Path, manifest: Manifest, task: Task) -> HeadsReference:
    """The reference of a model's sparse or multi-vector embeddings."""
    facts = read_facts(checkpoint)
    if facts.sparse is not None and facts.sparse.head is not None:
        return LinearHeadsReference(checkpoint, manifest, task)
    return (SparseReference if task == "sparse" else MultiVectorReference)(checkpoint, manifest)


def _loading() -> dict[str, Any]:
    import torch

    return {
        "device": "cpu",
        "local_files_only": True,
        "model_kwargs": {"dtype": torch.float32, "attn_implementation": "eager"},
    }


class SparseReference:
    """sentence-transformers' SparseEncoder."""

    @contained("be loaded")
    def __init__(self, checkpoint: Path, manifest: Manifest) -> None:
        from sentence_transformers import SparseEncoder

        self.name = f"sentence-transformers {version('sentence-transformers')} SparseEncoder, float32, eager attention"
        self._model: Any = SparseEncoder(str(checkpoint), **_loading())
        limit = manifest.tokenization.max_length
        if limit.origin != "file" or limit.value < self._model.max_seq_length:
            self._model.max_seq_length = limit.value

    @contained("tokenize")
    def token_ids(self, text: str, kind: TextKind | None) -> list[int]:
        """Token ids of a text, marker included, expansion not."""
        ids: list[int] = self._model.preprocess([text])["input_ids"][0].tolist()
        return ids

    @contained("encode")
    def embed(self, texts: Sequence[str], kind: TextKind | None) -> list[FloatArray]:
        """The array of each text, each run alone."""
        options = {"batch_size": 1, "prompt": "", "show_progress_bar": False, "convert_to_sparse_tensor": False}
        return [row[None] for row in self._model.encode(list(texts), **options).numpy()]


class MultiVectorReference:
    """sentence-transformers' MultiVectorEncoder; prompts, markers and lengths are those of its own files."""

    @contained("be loaded")
    def __init__(self, checkpoint: Path, manifest: Manifest) -> None:
        from sentence_transformers import MultiVectorEncoder

        self.name = (
            f"sentence-transformers {version('sentence-transformers')} MultiVectorEncoder, float32, eager attention"
        )
        self._model: Any = MultiVectorEncoder(str(checkpoint), **_loading())
        prompts = manifest.prompts.texts
        # What a recipe adds, the files do not say.
        self._prompts = prompts.value if prompts.origin == "recipe" else self._model.prompts
        if manifest.tokenization.max_length.origin == "flag":
            transformer: Any = self._model[0]
            transformer.document_length = manifest.tokenization.max_length.value

    @contained("tokenize")
    def token_ids(self, text: str, kind: TextKind | None) -> list[int]:
        """Token ids of a text, marker included, expansion not."""
        features = self._model.preprocess([text], prompt=self._prompt(kind), task=kind)
        ids = features["input_ids"][0]
        added = features.get("query_expansion_positions")
        kept: list[int] = ids.tolist() if added is None else ids[~added[0].bool()].tolist()
        return kept

    @contained("encode")
    def embed(self, texts: Sequence[str], kind: TextKind | None) -> list[FloatArray]:
        """The array of each text, each run alone."""
        found: list[FloatArray] = self._model.encode(
            list(texts),
            batch_size=1,
            prompt=self._prompt(kind),
            task=kind,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return found

    def _prompt(self, kind: TextKind | None) -> str:
        return (self._prompts.get(kind) if kind else None) or ""


class LinearHeadsReference:
    """FlagEmbedding's formulas for bge-m3 (inference/embedder/encoder_only/m3.py), on transformers' encoder."""

    @contained("be loaded")
    def __init__(self, checkpoint: Path, manifest: Manifest, task: Task) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.name = f"FlagEmbedding's formulas, transformers {version('transformers')}, float32, eager attention"
        self._torch, self._task = torch, task
        self._limit = manifest.tokenization.max_length.value
        facts = read_facts(checkpoint)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        self._model: Any = AutoModel.from_pretrained(checkpoint, attn_implementation="eager", dtype=torch.float32)
        self._model.eval()
        head = (
            facts.sparse and facts.sparse.head if task == "sparse" else facts.multi_vector and facts.multi_vector.head
        )
        if not head:
            raise ValueError(f"{checkpoint} has no head for {task}")
        self._head = _state(head)
        named = ("cls_token", "eos_token", "pad_token", "unk_token")
        self._unused = [getattr(self._tokenizer, f"{name}_id") for name in named]

    @contained("tokenize")
    def token_ids(self, text: str, kind: TextKind | None) -> list[int]:
        """Token ids of a text, marker included, expansion not."""
        ids: list[int] = self._tokenizer(text, truncation=True, max_length=self._limit)["input_ids"]
        return ids

    @contained("be run")
    def embed(self, texts: Sequence[str], kind: TextKind | None) -> list[FloatArray]:
        """The array of each text, each run alone."""
        return [self._embed(self.token_ids(text, kind)) for text in texts]

    def _embed(self, ids: list[int]) -> FloatArray:
        torch = self._torch
        with torch.no_grad():
            hidden = self._model(input_ids=torch.tensor([ids])).last_hidden_state
            if self._task == "multi_vector":
                vectors = torch.nn.functional.linear(hidden[0, 1:], **self._head)
                found: FloatArray = torch.nn.functional.normalize(vectors, dim=-1).numpy()
                return found
            weights = torch.relu(torch.nn.functional.linear(hidden, **self._head))[0, :, 0].numpy()
        row = np.zeros((1, self._model.config.vocab_size), np.float32)
        for token, weight in zip(ids, weights, strict=True):
            if token not in self._unused and weight > row[0, token]:
                row[0, token] = weight
        return row


def _state(head: Path) -> dict[str, Any]:
    """weight and bias of a head, read by another reader than the exporter's."""
    if head.suffix == ".safetensors":
        from safetensors.torch import load_file

        return {name: tensor.float() for name, tensor in load_file(head).items()}
    import torch

    loaded = torch.load(head, weights_only=True, map_location="cpu")
    return {name: tensor.float() for name, tensor in loaded.items()}

"""The reference of static embeddings: their definition, in numpy and double precision.

sentence-transformers is no reference here: it includes unknown tokens in the average, cannot read int8 tables and
takes no padded batches; only its modules after the table are run. model2vec itself is asked where it is installed; else
its definition is read independently of the exporter, with the tokenizers library and numpy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from onnxembed.arrays import FloatArray
from onnxembed.decisions.encoder import UNBOUNDED
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.facts.facts import read_facts
from onnxembed.manifest import Manifest
from onnxembed.verify.references.loading import reference_errors


class StaticReference:
    """A checkpoint of model2vec, or of sentence-transformers' StaticEmbedding."""

    def __init__(self, checkpoint: Path, manifest: Manifest) -> None:
        facts = read_facts(checkpoint)
        self._layers = _layers_after_table(checkpoint) if facts.post.layers else []
        self.name = "the average of the tokens' rows, numpy, float64"
        self.prompts: Mapping[str, str] = facts.prompts
        self.default_prompt: str | None = facts.default_prompt_name
        self._normalize = manifest.require_embedding().normalize.value
        self._limit = manifest.tokenization.max_length.value
        self._tokenizer = Tokenizer.from_file(str(facts.transformer_folder / "tokenizer.json"))
        weights = Checkpoint(facts.transformer_folder)
        is_model2vec = manifest.model.model_type == "model2vec"
        self._rows = weights.read_stored("embeddings" if is_model2vec else "embedding.weight").astype(np.float64)
        if weights.has("mapping"):
            self._rows = self._rows[weights.read_stored("mapping")]
        if weights.has("weights"):
            self._rows = self._rows * weights.read_stored("weights").astype(np.float64)[:, None]
        self._characters: int | None = None
        self._unknown_id: int | None = None
        self._library: Any = None
        if is_model2vec:
            self._unknown_id = _unknown_id(self._tokenizer)
            if self._limit < UNBOUNDED:
                self._characters = self._limit * int(np.median([len(token) for token in self._tokenizer.get_vocab()]))
            if find_spec("model2vec") is not None and not self.prompts:
                self._library = _load_library(facts.transformer_folder)
                self.name = f"model2vec {version('model2vec')}"

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids, truncated, without special tokens."""
        cut = [text[: self._characters] for text in texts]
        encodings = self._tokenizer.encode_batch(cut, add_special_tokens=False)
        return [encoding.ids[: self._limit] for encoding in encodings]

    def encode(self, texts: Sequence[str], *, prompt: str) -> FloatArray:
        """Vectors [N, D]."""
        if self._library is not None:
            limit = None if self._characters is None else self._limit
            options = {"max_length": limit, "normalize": self._normalize, "show_progress_bar": False}
            return np.asarray(self._library.encode([prompt + text for text in texts], **options), np.float32)
        return self._vectors(self.tokenize([prompt + text for text in texts]))

    def forward(self, feeds: Mapping[str, NDArray[np.int64]]) -> FloatArray:
        """Vectors [B, D] of a padded batch of ids."""
        real = feeds["attention_mask"] == 1
        return self._vectors([row[mask].tolist() for row, mask in zip(feeds["input_ids"], real, strict=True)])

    def _vectors(self, texts: Sequence[Sequence[int]]) -> FloatArray:
        vectors = np.zeros((len(texts), self._rows.shape[1]))
        for place, ids in enumerate(texts):
            if averaged := [token for token in ids if token != self._unknown_id]:
                vectors[place] = self._rows[averaged].mean(axis=0)
        if self._layers:
            vectors = _through(self._layers, vectors)
        if self._normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors.astype(np.float32)


@reference_errors("be loaded")
def _layers_after_table(checkpoint: Path) -> list[Any]:
    """sentence-transformers' own modules after the table, without the Normalize that ends the model."""
    from sentence_transformers import SentenceTransformer

    layers = list(SentenceTransformer(str(checkpoint), device="cpu", local_files_only=True).eval())[1:]
    while type(layers[-1]).__name__ == "Normalize":
        layers.pop()
    return layers


def _through(layers: Sequence[Any], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    import torch

    features = {"sentence_embedding": torch.from_numpy(vectors.astype(np.float32))}
    with torch.no_grad():
        for layer in layers:
            features = layer(features)
    given: NDArray[np.float64] = features["sentence_embedding"].numpy().astype(np.float64)
    return given


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    """The token that model2vec leaves out; a Unigram names it by id."""
    if hasattr(tokenizer.model, "unk_token"):
        token = tokenizer.model.unk_token
        return None if token is None else tokenizer.token_to_id(token)
    unknown: int | None = json.loads(tokenizer.to_str())["model"].get("unk_id")
    return unknown


def _load_library(folder: Path) -> Any:
    return import_module("model2vec").StaticModel.from_pretrained(folder)

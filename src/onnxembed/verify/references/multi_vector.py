"""The references of multi-vector embeddings, in float32 with eager attention. Needs the extra [torch].

sentence-transformers' MultiVectorEncoder; for bge-m3's head, FlagEmbedding's formula on transformers' encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from onnxembed.arrays import FloatArray
from onnxembed.facts.facts import read_facts
from onnxembed.manifest import Manifest, TextKind
from onnxembed.verify.references.linear_head import EncoderWithHead
from onnxembed.verify.references.loading import model_options, reference_errors
from onnxembed.verify.references.stock_folder import with_class


class MultiVectorReference(Protocol):
    """A reference implementation of multi-vector embeddings."""

    name: str

    def token_ids(self, text: str, kind: TextKind | None) -> list[int]:
        """The token ids of a text, with its marker, without expansion."""
        ...

    def embed(self, texts: Sequence[str], kind: TextKind | None) -> list[FloatArray]:
        """The vectors [T, D] of each text; each is run alone."""
        ...


def load_multi_vector_reference(checkpoint: Path, manifest: Manifest) -> MultiVectorReference:
    """The reference for a checkpoint's multi-vector embeddings."""
    facts = read_facts(checkpoint)
    if facts.sparse and facts.sparse.head and facts.multi_vector and facts.multi_vector.head:
        return LinearHeadReference(checkpoint, manifest, facts.multi_vector.head)
    return MultiVectorEncoderReference(checkpoint, manifest)


class MultiVectorEncoderReference:
    """sentence-transformers' MultiVectorEncoder, with the prompts, markers and lengths of the checkpoint's files."""

    @reference_errors("be loaded")
    def __init__(self, checkpoint: Path, manifest: Manifest) -> None:
        from sentence_transformers import MultiVectorEncoder

        self.name = (
            f"sentence-transformers {version('sentence-transformers')} MultiVectorEncoder, float32, eager attention"
        )
        with with_class(checkpoint) as folder:
            self._model: Any = MultiVectorEncoder(
                str(folder), device="cpu", local_files_only=True, model_kwargs=model_options()
            )
        prompts = manifest.prompts.texts
        # The files do not have the prompts that a recipe adds.
        self._prompts = prompts.value if prompts.origin == "recipe" else self._model.prompts
        if manifest.tokenization.max_length.origin == "flag":
            transformer: Any = self._model[0]
            transformer.document_length = manifest.tokenization.max_length.value

    @reference_errors("tokenize")
    def token_ids(self, text: str, kind: TextKind | None) -> list[int]:
        """The token ids of a text, with its marker, without expansion."""
        features = self._model.preprocess([text], prompt=self._prompt(kind), task=kind)
        ids = features["input_ids"][0]
        added = features.get("query_expansion_positions")
        own_ids: list[int] = ids.tolist() if added is None else ids[~added[0].bool()].tolist()
        return own_ids

    @reference_errors("encode")
    def embed(self, texts: Sequence[str], kind: TextKind | None) -> list[FloatArray]:
        """The vectors [T, D] of each text; each is run alone."""
        vectors: list[FloatArray] = self._model.encode(
            list(texts),
            batch_size=1,
            prompt=self._prompt(kind),
            task=kind,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return vectors

    def _prompt(self, kind: TextKind | None) -> str:
        return (self._prompts.get(kind) if kind else None) or ""


class LinearHeadReference:
    """bge-m3's token vectors, as FlagEmbedding computes them (inference/embedder/encoder_only/m3.py)."""

    @reference_errors("be loaded")
    def __init__(self, checkpoint: Path, manifest: Manifest, head: Path) -> None:
        self._encoder = EncoderWithHead(checkpoint, manifest, head)
        self.name = self._encoder.name

    @reference_errors("tokenize")
    def token_ids(self, text: str, kind: TextKind | None) -> list[int]:
        """The token ids of a text."""
        return self._encoder.token_ids(text)

    @reference_errors("be run")
    def embed(self, texts: Sequence[str], kind: TextKind | None) -> list[FloatArray]:
        """The vectors [T, D] of each text; each is run alone."""
        return [self._embed(self._encoder.token_ids(text)) for text in texts]

    def _embed(self, ids: Sequence[int]) -> FloatArray:
        from torch.nn.functional import normalize

        vectors: FloatArray = normalize(self._encoder.run(ids)[1:], dim=-1).numpy()  # without the first token, <s>
        return vectors

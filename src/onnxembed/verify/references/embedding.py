"""The reference of embeddings: sentence-transformers, in float32 with eager attention. Needs the extra [torch]."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from onnxembed.arrays import FloatArray
from onnxembed.decisions.encoder import end_token
from onnxembed.export.engines.transformers_class import set_attention
from onnxembed.facts.facts import read_facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.manifest import Embedding, Manifest
from onnxembed.recipes.book import read_recipe
from onnxembed.tokenizer.end_token import append_end_token
from onnxembed.verify.batches import BATCH_SIZE
from onnxembed.verify.references.loading import model_options, reference_errors


class EmbeddingReference:
    """A checkpoint folder in sentence-transformers, never with remote code.

    Everything comes from the checkpoint's own files; only the decisions of a flag or a recipe are set to the
    manifest's.
    """

    @reference_errors("be loaded")
    def __init__(self, checkpoint: Path, manifest: Manifest) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self.name = f"sentence-transformers {version('sentence-transformers')}, float32, eager attention"
        self._torch = torch
        model = _load(checkpoint)
        self.prompts: Mapping[str, str] = model.prompts
        self.default_prompt: str | None = model.default_prompt_name
        transformer, *others = model
        if MODEL_TYPES[manifest.model.model_type].decoder:
            set_attention(transformer.model.config, manifest.model.attention.value)
        others = _decided_modules(others, transformer, manifest.require_embedding())
        self._model = SentenceTransformer(modules=[transformer, *others], device="cpu").eval()
        recipe = read_recipe(manifest.source.recipe) if manifest.source.recipe else None
        if last := end_token(read_facts(checkpoint), recipe):
            _append_end_token(self._model.tokenizer.backend_tokenizer, last.value)
        own_limit = min(model.max_seq_length, _positions(transformer))
        length = manifest.tokenization.max_length
        self._model.max_seq_length = own_limit if length.origin == "file" else length.value

    @reference_errors("tokenize")
    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids, truncated, as `encode` makes them."""
        return [self._model.preprocess([text])["input_ids"][0].tolist() for text in texts]

    @reference_errors("encode")
    def encode(self, texts: Sequence[str], *, prompt: str) -> FloatArray:
        """Vectors [N, D] the way a user of sentence-transformers gets them."""
        vectors: FloatArray = self._model.encode(
            list(texts), batch_size=BATCH_SIZE, prompt=prompt, show_progress_bar=False
        )
        return vectors

    @reference_errors("be run")
    def forward(self, feeds: Mapping[str, NDArray[np.int64]]) -> FloatArray:
        """Vectors [B, D] of a padded batch of ids."""
        features = {name: self._torch.from_numpy(value) for name, value in feeds.items()}
        with self._torch.no_grad():
            vectors: FloatArray = self._model.forward(features)["sentence_embedding"].numpy()
        return vectors


def _load(checkpoint: Path) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    options = model_options()
    if (checkpoint / "modules.json").is_file():
        return SentenceTransformer(str(checkpoint), device="cpu", model_kwargs=options, local_files_only=True)
    transformer: Any = Transformer(str(checkpoint), model_kwargs=options)
    # Where the tokenizer has a chat template, the module would put plain texts into it; no file asks for that.
    transformer.modality_config.pop("message", None)
    return SentenceTransformer(modules=[transformer], device="cpu")


def _decided_modules(modules: Sequence[Any], transformer: Any, embedding: Embedding) -> list[Any]:
    """The modules after the transformer, with the pooling and the normalization that a flag or a recipe decided."""
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

    decided = list(modules)
    if embedding.pooling.origin in ("flag", "recipe"):
        modes = tuple("mean_sqrt_len_tokens" if mode == "mean_sqrt_len" else mode for mode in embedding.pooling.value)
        places = [place for place, module in enumerate(decided) if isinstance(module, Pooling)]
        before = decided[: places[0]] if places else []
        dense = [module for module in before if isinstance(module, Dense)]
        width = dense[-1].out_features if dense else transformer.get_embedding_dimension()
        after = [module for module in decided[len(before) :] if not isinstance(module, Pooling)]
        include_prompt = embedding.prompt_left_out is None
        decided = [*before, Pooling(width, modes, include_prompt=include_prompt), *after]
    if embedding.normalize.origin in ("flag", "recipe"):
        while decided and isinstance(decided[-1], Normalize):
            decided.pop()
        if embedding.normalize.value:
            decided.append(Normalize())
    return decided


def _append_end_token(tokenizer: Any, token: str) -> None:
    """Let the reference end every text with `token`, where its files and classes leave it out."""
    state = json.loads(tokenizer.to_str())
    if append_end_token(state, token):
        tokenizer.post_processor = Tokenizer.from_str(json.dumps(state)).post_processor


def _positions(transformer: Any) -> float:
    """How many tokens the reference's position table has rows for; infinity without such a table.

    Some configurations promise more, and the reference fails on texts of that length. RoBERTa and its relatives
    number positions from padding_idx + 1.
    """
    for name, module in transformer.model.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "num_embeddings"):
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings) - reserved
    return float("inf")

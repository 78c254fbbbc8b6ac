"""The reference implementation: sentence-transformers, in float32 with eager attention. Needs the extra [torch]."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from onnxembed.decisions.encoder import end_token
from onnxembed.errors import VerificationError
from onnxembed.export.engines.quiet import quiet
from onnxembed.export.engines.transformers_class import set_attention
from onnxembed.facts.facts import read_facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.manifest import Manifest
from onnxembed.recipes.book import read_recipe
from onnxembed.tokenizer.end_token import complete

BATCH = 8


@contextmanager
def contained(what: str) -> Iterator[None]:
    """Keep the reference off the screen, and make its errors ours, in one line."""
    try:
        with quiet():
            yield
    except Exception as error:  # from three libraries and whatever they call
        line = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise VerificationError(f"the reference cannot {what} ({line})") from error


class Reference:
    """A checkpoint folder in sentence-transformers, never with remote code.

    Everything comes from the checkpoint's own files; only what a flag or a recipe decided is set as the
    manifest has it.
    """

    prompts: Mapping[str, str]
    default_prompt: str | None

    @contained("be loaded")
    def __init__(self, checkpoint: Path, manifest: Manifest) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

        self.name = f"sentence-transformers {version('sentence-transformers')}, float32, eager attention"
        self._torch = torch
        loading = {"dtype": torch.float32, "attn_implementation": "eager"}
        model: Any
        if (checkpoint / "modules.json").is_file():
            model = SentenceTransformer(str(checkpoint), device="cpu", model_kwargs=loading, local_files_only=True)
        else:
            model = SentenceTransformer(modules=[Transformer(str(checkpoint), model_kwargs=loading)], device="cpu")
        self.prompts, self.default_prompt = model.prompts, model.default_prompt_name
        transformer, *others = model
        if MODEL_TYPES[manifest.model.model_type].decoder:
            set_attention(transformer.model.config, manifest.model.attention.value)
        embedding, length = manifest.require_embedding(), manifest.tokenization.max_length
        if embedding.pooling.origin in ("flag", "recipe"):
            modes = tuple("mean_sqrt_len_tokens" if m == "mean_sqrt_len" else m for m in embedding.pooling.value)
            pooling = Pooling(transformer.get_embedding_dimension(), modes)
            others = [pooling, *(each for each in others if not isinstance(each, Pooling))]
        if embedding.normalize.origin in ("flag", "recipe"):
            others = [each for each in others if not isinstance(each, Normalize)]
            others += [Normalize()] if embedding.normalize.value else []
        self._model = SentenceTransformer(modules=[transformer, *others], device="cpu").eval()
        recipe = read_recipe(manifest.source.recipe) if manifest.source.recipe else None
        if last := end_token(read_facts(checkpoint), recipe):
            _complete(self._model.tokenizer.backend_tokenizer, last.value)
        own_limit = min(model.max_seq_length, _positions(transformer))
        self._model.max_seq_length = own_limit if length.origin == "file" else length.value

    @contained("tokenize")
    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids, truncated, as `encode` makes them."""
        return [self._model.preprocess([text])["input_ids"][0].tolist() for text in texts]

    @contained("encode")
    def encode(self, texts: Sequence[str], *, prompt: str) -> NDArray[np.float32]:
        """Vectors [N, D] the way a user of sentence-transformers gets them."""
        vectors: NDArray[np.float32] = self._model.encode(
            list(texts), batch_size=BATCH, prompt=prompt, show_progress_bar=False
        )
        return vectors

    @contained("be run")
    def forward(self, feeds: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Vectors [B, D] of a padded batch of ids."""
        features = {name: self._torch.from_numpy(value) for name, value in feeds.items()}
        with self._torch.no_grad():
            vectors: NDArray[np.float32] = self._model.forward(features)["sentence_embedding"].numpy()
        return vectors


def _complete(tokenizer: Any, token: str) -> None:
    """Let the reference end texts as it should, where its files and classes forget it."""
    state = json.loads(tokenizer.to_str())
    if complete(state, token):
        tokenizer.post_processor = Tokenizer.from_str(json.dumps(state)).post_processor


def _positions(transformer: Any) -> float:
    """How many tokens the reference's position table, where it has one, has rows for.

    Some configurations promise more, and the reference fails on the texts that get there. RoBERTa and its
    kin number positions from padding_idx + 1.
    """
    for name, module in transformer.model.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "num_embeddings"):
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings) - reserved
    return float("inf")

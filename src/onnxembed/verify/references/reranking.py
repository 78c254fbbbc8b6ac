"""The reference of rerankers: sentence-transformers' CrossEncoder, in float32. Needs the extra [torch]."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnxembed.arrays import FloatArray
from onnxembed.errors import VerificationError
from onnxembed.export.engines.transformers_class import set_attention
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.manifest import Manifest, Reranking, Template
from onnxembed.tokenizer.pairs import Pair
from onnxembed.verify.references.loading import model_options, reference_errors


class CrossEncoderReference:
    """A checkpoint folder in sentence-transformers, never with remote code; a template comes from the manifest."""

    def __init__(self, checkpoint: Path, manifest: Manifest) -> None:
        import torch
        from sentence_transformers import CrossEncoder

        self.name = f"sentence-transformers {version('sentence-transformers')}, float32, eager attention"
        self._torch = torch
        reranking = manifest.require_reranking()
        with reference_errors("be loaded"):
            model: Any = CrossEncoder(
                str(checkpoint),
                device="cpu",
                local_files_only=True,
                model_kwargs=model_options(),
            )
            self._model = model.eval()
            transformer = model[0]
            if MODEL_TYPES[manifest.model.model_type].decoder:
                set_attention(transformer.model.config, manifest.model.attention.value)
            _set_template(transformer, reranking)
            model.max_seq_length = manifest.tokenization.max_length.value

    @property
    def activation(self) -> str:
        """The name of the class that turns logits into scores."""
        return type(self._model.activation_fn).__name__

    def tokenize(self, pairs: Sequence[Pair]) -> list[Mapping[str, list[int]]]:
        """Token ids, and segments if the reference feeds them, as `predict` makes them."""
        with reference_errors("tokenize"):
            features = [self._model.preprocess([pair]) for pair in pairs]
            names = ("input_ids", "token_type_ids")
            return [{name: pair[name][0].tolist() for name in names if name in pair} for pair in features]

    def logits(self, pairs: Sequence[Pair]) -> FloatArray:
        """Logits [N, labels]."""
        with reference_errors("be run"):
            logits: FloatArray = self._model.predict(
                list(pairs), batch_size=1, activation_fn=self._torch.nn.Identity(), show_progress_bar=False
            )
        return logits.reshape(len(pairs), -1)

    def scores(self, pairs: Sequence[Pair]) -> FloatArray:
        """Scores [N, labels] the way a user of sentence-transformers gets them."""
        with reference_errors("be run"):
            scores: FloatArray = self._model.predict(list(pairs), batch_size=1, show_progress_bar=False)
        return scores.reshape(len(pairs), -1)


def _set_template(transformer: Any, reranking: Reranking) -> None:
    """Give the reference the manifest's template in the form it takes, a Jinja program."""
    if reranking.template is None:
        transformer.processor.chat_template = None
        transformer.modality_config.pop("message", None)
        return
    transformer.processor.chat_template = _program(reranking.template.value)
    message = {**transformer.modality_config["text"], "format": "flat"}
    transformer.modality_config = {**transformer.modality_config, "message": message}


def _program(template: Template) -> str:
    """The chat template that formats a query message and a document message as `template` formats a pair."""
    text = template.prefix + template.body + template.suffix
    text = text.replace("{instruction}", template.instruction or "")
    first, _, rest = text.partition("{query}")
    middle, _, last = rest.partition("{document}")
    if "{document}" in first:
        raise VerificationError("a template with the document before its query cannot be compared")
    pick = 'messages | selectattr("role", "eq", "{}") | map(attribute="content") | first'
    parts = [json.dumps(first), pick.format("query"), json.dumps(middle), pick.format("document"), json.dumps(last)]
    return "".join("{{ " + part + " }}" for part in parts)

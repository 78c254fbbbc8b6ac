"""The encoder and the heads of bge-m3, in transformers and torch. Needs the extra [torch]."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnxembed.manifest import Manifest
from onnxembed.verify.references.loading import model_options


class EncoderWithHead:
    """transformers' encoder of a checkpoint, and one linear head that has a file of its own."""

    def __init__(self, checkpoint: Path, manifest: Manifest, head: Path) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.name = f"FlagEmbedding's formulas, transformers {version('transformers')}, float32, eager attention"
        self._torch = torch
        self._limit = manifest.tokenization.max_length.value
        self.tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        self.model: Any = AutoModel.from_pretrained(checkpoint, **model_options())
        self.model.eval()
        self._head = _read_head(head)

    def token_ids(self, text: str) -> list[int]:
        """The token ids of a text."""
        ids: list[int] = self.tokenizer(text, truncation=True, max_length=self._limit)["input_ids"]
        return ids

    def run(self, ids: Sequence[int]) -> Any:
        """The head's output for one text, a tensor [T, D]."""
        with self._torch.no_grad():
            hidden = self.model(input_ids=self._torch.tensor([list(ids)])).last_hidden_state
            return self._torch.nn.functional.linear(hidden[0], **self._head)


def _read_head(file: Path) -> dict[str, Any]:
    """The weight and bias of a head, read by another reader than the exporter's."""
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return {name: tensor.float() for name, tensor in load_file(file).items()}
    import torch

    loaded = torch.load(file, weights_only=True, map_location="cpu")
    return {name: tensor.float() for name, tensor in loaded.items()}

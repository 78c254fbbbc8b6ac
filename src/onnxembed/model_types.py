"""What each model_type assumes where its config.json is silent. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from onnxembed.manifest import AttentionMode


@dataclass(frozen=True)
class ModelType:
    """Defaults of one model_type.

    `pad_token_id`: what fills unused slots; only RoBERTa's kin looks at it, elsewhere padding is masked.
    `positions_after_pad`: positions are counted from pad_token_id + 1, so that many rows of the position
    table are never a token's (RoBERTa and its kin).
    `attention`: how its tokens see each other when nothing says otherwise. Decoders were made causal and
    many are trained on as bidirectional embedders, so for them config.json and flags may decide.
    """

    pad_token_id: int = 0
    positions_after_pad: bool = False
    hidden_size_key: str = "hidden_size"
    attention: AttentionMode = "bidirectional"
    decoder: bool = False


ROBERTA = ModelType(pad_token_id=1, positions_after_pad=True)

MODEL_TYPES: dict[str, ModelType] = {
    "bert": ModelType(),
    "camembert": ROBERTA,
    "distilbert": ModelType(hidden_size_key="dim"),
    "electra": ModelType(),
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
}

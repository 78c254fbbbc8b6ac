"""The defaults of each model_type for what config.json leaves out. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxembed.manifest import AttentionMode


@dataclass(frozen=True)
class ModelType:
    """Defaults of one model_type.

    `pad_token_id`: what fills unused slots; only the RoBERTa family reads it, elsewhere padding is masked.
    `positions_after_pad`: positions are counted from pad_token_id + 1, so the first pad_token_id + 1 rows of the
    position table are never used (the RoBERTa family).
    `position_table`: positions are rows of a table, which bounds every text. Rotary positions bound none;
    max_position_embeddings is then only the length that the model was made for.
    `position_table_key`: the key of config.json, true where absent, that says whether there is a table.
    `static`: a token's vector is a row of a table and does not depend on context; special tokens are left out.
    `older_keys`: the keys that older config.json files use for sizes.
    `attention`: how tokens attend to each other by default. Decoders were made causal, and many were trained
    further as bidirectional embedders, so for them config.json and flags may decide.
    """

    pad_token_id: int = 0
    positions_after_pad: bool = False
    position_table: bool = True
    position_table_key: str | None = None
    static: bool = False
    hidden_size_key: str = "hidden_size"
    older_keys: Mapping[str, str] = field(default_factory=dict)
    attention: AttentionMode = "bidirectional"
    decoder: bool = False

    def has_position_table(self, config: Mapping[str, Any]) -> bool:
        """Whether a model with this config.json looks its positions up in a table."""
        return self.position_table and config.get(self.position_table_key or "") is not False


ROBERTA = ModelType(pad_token_id=1, positions_after_pad=True)
ROTARY = ModelType(position_table=False)
STATIC = ModelType(position_table=False, static=True, hidden_size_key="hidden_dim")
DECODER = ModelType(position_table=False, attention="causal", decoder=True)

MODEL_TYPES: dict[str, ModelType] = {
    "albert": ModelType(),
    "bert": ModelType(),
    "camembert": ROBERTA,
    "deberta-v2": ModelType(position_table_key="position_biased_input"),
    "distilbert": ModelType(hidden_size_key="dim"),
    "electra": ModelType(),
    "eurobert": ModelType(pad_token_id=128001, position_table=False),
    "gte": ModelType(pad_token_id=1, position_table=False),
    "gemma3_text": DECODER,
    "jina_embeddings_v3": ModelType(pad_token_id=1, position_table=False),
    "llama": DECODER,
    "mistral": DECODER,
    "mpnet": ROBERTA,
    "model2vec": STATIC,
    "modernbert": ModelType(pad_token_id=50283, position_table=False),
    "new": ROTARY,
    "nomic_bert": ModelType(
        position_table=False, older_keys={"hidden_size": "n_embd", "max_position_embeddings": "n_positions"}
    ),
    "qwen2": DECODER,
    "qwen3": DECODER,
    "roberta": ROBERTA,
    "static_embedding": STATIC,
    "xlm-roberta": ROBERTA,
}

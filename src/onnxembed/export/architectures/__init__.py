"""One small file per family; this table says which builds what.

A builder takes the graph, the model's config and the graph's inputs, and returns the last hidden state
[B, T, D] in the graph's type, exactly as the stock transformers class computes it in inference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from onnxembed.export.architectures import bert, distilbert
from onnxembed.export.config import Config
from onnxembed.export.graph import Graph, Value
from onnxembed.export.inputs import Inputs

Builder = Callable[[Graph, Config, Inputs], Value]


@dataclass(frozen=True)
class Architecture:
    """How to build one model_type.

    `prefix`: what task classes put before the encoder's tensor names. `heads`: names of tensors that an
    encoder does not use (poolers, task heads, buffers), as a regular expression for the start of a name.
    """

    build: Builder
    prefix: str
    heads: re.Pattern[str]


_BERT_HEADS = re.compile(r"(pooler|cls|classifier|qa_outputs|lm_head|embeddings\.position_ids)\b")
_ELECTRA_HEADS = re.compile(
    r"(discriminator_predictions|generator_predictions|generator_lm_head|classifier|qa_outputs|embeddings\.position_ids)\b"
)
_DISTILBERT_HEADS = re.compile(
    r"(vocab_transform|vocab_layer_norm|vocab_projector|pre_classifier|classifier|qa_outputs)\b"
)

ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture(bert.bert, "bert.", _BERT_HEADS),
    "roberta": Architecture(bert.roberta, "roberta.", _BERT_HEADS),
    "xlm-roberta": Architecture(bert.roberta, "roberta.", _BERT_HEADS),
    "camembert": Architecture(bert.roberta, "roberta.", _BERT_HEADS),
    "electra": Architecture(bert.electra, "electra.", _ELECTRA_HEADS),
    "distilbert": Architecture(distilbert.distilbert, "distilbert.", _DISTILBERT_HEADS),
}

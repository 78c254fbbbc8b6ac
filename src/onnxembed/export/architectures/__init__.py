"""One small file per family; this table says which builds what.

A builder takes the graph, the model's config and the graph's inputs, and returns the last hidden state
[B, T, D] in the graph's type, exactly as the stock transformers class computes it in inference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from onnxembed.export.architectures import (
    bert,
    distilbert,
    eurobert,
    gemma3,
    jina_embeddings_v3,
    llama,
    modernbert,
    mpnet,
    new,
    nomic_bert,
    static,
)
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import Inputs

Builder = Callable[[Graph, Config, Inputs], Value]


@dataclass(frozen=True)
class Architecture:
    """How to build one model_type.

    `prefix`: what task classes put before the encoder's tensor names, or several such. `heads`: names of
    tensors that an encoder does not use (poolers, task heads, buffers), as a regular expression for the
    start of a name.
    """

    build: Builder
    prefix: str | tuple[str, ...]
    heads: re.Pattern[str]


_BERT_HEADS = re.compile(r"(pooler|cls|classifier|qa_outputs|lm_head|embeddings\.position_ids)\b")
_ELECTRA_HEADS = re.compile(
    r"(discriminator_predictions|generator_predictions|generator_lm_head|classifier|qa_outputs|embeddings\.position_ids)\b"
)
_DISTILBERT_HEADS = re.compile(
    r"(vocab_transform|vocab_layer_norm|vocab_projector|pre_classifier|classifier|qa_outputs)\b"
)
_DECODER_HEADS = re.compile(r"(lm_head|score|layers\.\d+\.self_attn\.rotary_emb\.inv_freq)\b")
_EUROBERT_HEADS = re.compile(r"(lm_head|dense|classifier)\b")
_MODERNBERT_HEADS = re.compile(r"(head|decoder|classifier)\b")
_NOMIC_BERT_HEADS = re.compile(r"(pooler|cls|classifier)\b")
_NEW_HEADS = re.compile(r"(pooler|classifier|lm_head|qa_outputs)\b")
_NO_HEADS = re.compile(r"(?!)")

ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture(bert.bert, "bert.", _BERT_HEADS),
    "roberta": Architecture(bert.roberta, "roberta.", _BERT_HEADS),
    "xlm-roberta": Architecture(bert.roberta, "roberta.", _BERT_HEADS),
    "camembert": Architecture(bert.roberta, "roberta.", _BERT_HEADS),
    "electra": Architecture(bert.electra, "electra.", _ELECTRA_HEADS),
    "distilbert": Architecture(distilbert.distilbert, "distilbert.", _DISTILBERT_HEADS),
    "mpnet": Architecture(mpnet.mpnet, "mpnet.", _BERT_HEADS),
    "eurobert": Architecture(eurobert.eurobert, "model.", _EUROBERT_HEADS),
    "model2vec": Architecture(static.model2vec, "", _NO_HEADS),
    "static_embedding": Architecture(static.static_embedding, "", _NO_HEADS),
    "gte": Architecture(new.gte, ("gte.", "new."), _NEW_HEADS),
    "modernbert": Architecture(modernbert.modernbert, "model.", _MODERNBERT_HEADS),
    "new": Architecture(new.new, "new.", _NEW_HEADS),
    "nomic_bert": Architecture(nomic_bert.nomic_bert, ("nomic_bert.", "bert."), _NOMIC_BERT_HEADS),
    "gemma3_text": Architecture(gemma3.gemma3, "model.", _DECODER_HEADS),
    "jina_embeddings_v3": Architecture(jina_embeddings_v3.jina_embeddings_v3, "roberta.", _BERT_HEADS),
    "llama": Architecture(llama.llama, "model.", _DECODER_HEADS),
    "mistral": Architecture(llama.mistral, "model.", _DECODER_HEADS),
    "qwen2": Architecture(llama.qwen2, "model.", _DECODER_HEADS),
    "qwen3": Architecture(llama.qwen3, "model.", _DECODER_HEADS),
}

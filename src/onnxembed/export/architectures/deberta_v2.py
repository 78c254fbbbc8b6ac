"""DeBERTa v2 and v3, which have no builder: transformers' DebertaV2Model is traced."""

from __future__ import annotations

from onnxembed.export.architectures.architecture import Architecture, Classifier, Key

DEBERTA_V2 = Architecture(
    heads=r"pooler|classifier|cls|lm_predictions|mask_predictions|qa_outputs|embeddings\.position_ids",
    classifier=Classifier("classifier", dense="pooler.dense", activation=Key("pooler_hidden_act", "gelu")),
    traceable=True,
    # DebertaV2Model reads them where they are; its config class does not mention them.
    undeclared_keys=frozenset(
        {
            "attention_head_size",
            "conv_act",
            "conv_groups",
            "conv_kernel_size",
            "embedding_size",
            "norm_rel_ebd",
            "position_buckets",
            "share_att_key",
        }
    ),
    tokenizer_class="DebertaV2Tokenizer",
)

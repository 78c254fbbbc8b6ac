"""ALBERT, which has no builder: transformers' AlbertModel is traced."""

from __future__ import annotations

from onnxembed.export.architectures.architecture import Architecture, Classifier

ALBERT = Architecture(
    heads=r"pooler|predictions|sop_classifier|classifier|qa_outputs|embeddings\.position_ids",
    classifier=Classifier("classifier", dense="albert.pooler"),
    traceable=True,
    tokenizer_class="AlbertTokenizer",
)

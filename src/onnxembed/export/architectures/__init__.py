"""One small file per family, which ends with a row for each of its model types; this table collects the rows.

What a model_type assumes where its files are silent is in `facts.model_types`.
"""

from __future__ import annotations

from onnxembed.export.architectures import (
    albert,
    bert,
    deberta_v2,
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
from onnxembed.export.architectures.architecture import Architecture

ARCHITECTURES: dict[str, Architecture] = {
    "albert": albert.ALBERT,
    "bert": bert.BERT,
    "camembert": bert.CAMEMBERT,
    "deberta-v2": deberta_v2.DEBERTA_V2,
    "distilbert": distilbert.DISTILBERT,
    "electra": bert.ELECTRA,
    "eurobert": eurobert.EUROBERT,
    "gemma3_text": gemma3.GEMMA3,
    "gte": new.GTE,
    "jina_embeddings_v3": jina_embeddings_v3.JINA_EMBEDDINGS_V3,
    "llama": llama.LLAMA,
    "mistral": llama.MISTRAL,
    "model2vec": static.MODEL2VEC,
    "modernbert": modernbert.MODERNBERT,
    "mpnet": mpnet.MPNET,
    "new": new.NEW,
    "nomic_bert": nomic_bert.NOMIC_BERT,
    "qwen2": llama.QWEN2,
    "qwen3": llama.QWEN3,
    "roberta": bert.ROBERTA,
    "static_embedding": static.STATIC_EMBEDDING,
    "xlm-roberta": bert.XLM_ROBERTA,
}
"""Every model_type that can be exported, by its name in config.json."""

"""The files of sentence-transformers, and PyLate's and the original ColBERT's keys in them.

Reference: sentence-transformers 6.2, base/model.py and the models and modules that are built on it.
"""

from __future__ import annotations

from onnxembed.facts.known import KnownKeys, words

PYLATE = words(
    """
    query_prefix document_prefix query_length document_length do_query_expansion attend_to_expansion_tokens
    attend_to_mask_tokens skiplist_words query_expansion
    """
)
"""PyLate's keys of config_sentence_transformers.json."""

MODEL = KnownKeys(
    read=words("model_type prompts default_prompt_name similarity_fn_name activation_fn") | PYLATE,
    harmless={
        "__version__": "who wrote the file",
        "requirements": "which releases the reference needs",
        "keep_in_fp32_modules": "everything is compared in fp32",
    },
    off={
        "truncate_dim": "which is not built into a graph: delete the key, and ask for dimensions={value} "
        "(--dimensions {value}) when you embed",
        "max_active_dims": "which keeps only the {value} largest weights of a text, and is not built: delete the key "
        "for all of them",
    },
)
"""config_sentence_transformers.json."""

MODULES = KnownKeys(
    read=words("name path type"),
    harmless={
        "idx": "modules are taken in the order of the list",
        "kwargs": "names arguments that a caller may pass on",
    },
)
"""An entry of modules.json."""

POOLING = KnownKeys(
    read=words(
        """
        pooling_mode include_prompt pooling_mode_cls_token pooling_mode_max_tokens pooling_mode_mean_tokens
        pooling_mode_mean_sqrt_len_tokens pooling_mode_weightedmean_tokens pooling_mode_lasttoken
        """
    ),
    harmless={
        "embedding_dimension": "the width of what it gets",
        "word_embedding_dimension": "the width of what it gets",
        "output_key": "NoInstruct's own, for code that is never run",
    },
)

DENSE = KnownKeys(
    read=words("in_features out_features bias activation_function use_residual module_input_name module_output_name"),
    off=dict.fromkeys(("init_weight", "init_bias"), "but the weights lie in a file"),
)

NORMALIZE = KnownKeys(read=words("module_input_name module_output_name"))

LAYER_NORM = KnownKeys(read=words("dimension"))

DROPOUT = KnownKeys(harmless={"dropout": "for training only"})

WEIGHTED_LAYER_POOLING = KnownKeys(
    read=words("num_hidden_layers layer_start"),
    harmless=dict.fromkeys(words("embedding_dimension word_embedding_dimension"), "the width of what it gets"),
    off={"layer_weights": "but the weights lie in a file"},
)

SPLADE_POOLING = KnownKeys(
    read=words("pooling_strategy activation_function"),
    harmless={
        "embedding_dimension": "the size of the vocabulary",
        "word_embedding_dimension": "the size of the vocabulary",
        "chunk_size": "how many texts are computed at once",
    },
)

MULTI_VECTOR_MASK = KnownKeys(
    read=words("skiplist_words skiplist_tasks"),
    off={"keep_only_token_ids": "which onnxembed does not support"},
)

LOGIT_SCORE = KnownKeys(
    read=words("true_token_id false_token_id"),
    harmless={"module_input_name": "the logits are the only input that there is"},
)

STANFORD = KnownKeys(
    read=words("query_token_id doc_token_id query_maxlen doc_maxlen mask_punctuation attend_to_mask_tokens")
)
"""artifact.metadata of an original ColBERT, which has many keys of training besides."""

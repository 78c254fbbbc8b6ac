"""What the config of the Transformer module says: options for loading and running the model. Standard library only.

An option is an error unless it is known not to change vectors: ignoring it could silently change them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxembed.errors import UnsupportedError
from onnxembed.facts.multi_vector import MULTI_VECTOR_CLASSES
from onnxembed.facts.sparse import SPARSE_CLASSES
from onnxembed.json_file import JsonObject, read_json

# Older releases named this file after the architecture.
TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)

# Speed options of the Transformer module: they do not change vectors.
TRANSFORMER_HARMLESS = {"unpad_inputs", "backend"}
# Arguments for loading the model, its tokenizer and its config, under their old and new names. Of these,
# only HARMLESS_ARGUMENTS leave vectors unchanged.
TRANSFORMER_ARGUMENTS = {
    "model_args",
    "model_kwargs",
    "tokenizer_args",
    "processor_kwargs",
    "config_args",
    "config_kwargs",
}
HARMLESS_ARGUMENTS = {
    "add_pooling_layer",
    "attn_implementation",
    "device_map",
    "dtype",
    "low_cpu_mem_usage",
    "padding_side",
    "revision",
    "torch_dtype",
    "trust_remote_code",
    "use_fast",
    "use_safetensors",
}
# Options with the only value that is supported.
TRANSFORMER_EXPECTED: dict[str, Any] = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "query_length": None,
    "document_length": None,
    "query_expansion": None,
    "processing_kwargs": {},
}

# The same for a CrossEncoder, by its transformer_task; a plain language model is read with LogitScore.
CROSS_ENCODER_EXPECTED: dict[str, dict[str, Any]] = {
    "sequence-classification": {
        "module_output_name": "scores",
        "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    },
    "text-generation": {
        "module_output_name": "causal_logits",
        "modality_config": {
            "text": {"method": "forward", "method_output_name": "logits"},
            "message": {"method": "forward", "method_output_name": "logits", "format": "flat"},
        },
    },
}

CHAT_TEMPLATE = (
    "{file} sends every text through the chat template of the tokenizer (modality_config has message), which is a "
    "program that onnxembed does not run; for vectors of the texts as they are, take message out of "
    "modality_config in a copy of {folder}, and make what the template adds a prompt"
)

# The same for a SparseEncoder.
SPARSE_EXPECTED: dict[str, Any] = {
    "transformer_task": "fill-mask",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
}
# The task of a module of class Transformer, whose default is feature-extraction; an MLMTransformer has its own.
TASK_OF_CLASS = {"CrossEncoder": "sequence-classification", "SparseEncoder": "fill-mask"}

# Further options of a MultiVectorEncoder's Transformer module, which multi_vector.py reads.
MULTI_VECTOR_OPTIONS = {"query_length", "document_length", "query_expansion"}


def read_transformer_config(folder: Path, class_name: str, module: str | None = None) -> tuple[str, JsonObject]:
    """The file name and the content of the config, for a model of sentence-transformers' class `class_name`.

    `module` is the class that modules.json names for the module, None without such a file. Raises UnsupportedError for
    an option that would change vectors.
    """
    name, config = _read_config(folder, class_name)
    if module == "Transformer" and class_name in TASK_OF_CLASS and "transformer_task" not in config:
        raise UnsupportedError(
            f"{folder / name} has no transformer_task, so sentence-transformers reads the model without the head of a "
            f"{class_name}, as config_sentence_transformers.json makes it (model_type); "
            f"set it to {TASK_OF_CLASS[class_name]!r} in a copy of the folder"
        )
    return name, config


def _read_config(folder: Path, class_name: str) -> tuple[str, JsonObject]:
    for name in TRANSFORMER_CONFIGS:
        if (folder / name).is_file() or (folder / name).is_symlink():
            config = read_json(folder / name)
            expected = TRANSFORMER_EXPECTED
            if class_name == "CrossEncoder" and (task := config.get("transformer_task")) in CROSS_ENCODER_EXPECTED:
                expected = {**expected, **CROSS_ENCODER_EXPECTED[task], "transformer_task": task}
            if class_name in SPARSE_CLASSES:
                expected = {**expected, **SPARSE_EXPECTED}
            if class_name in MULTI_VECTOR_CLASSES:
                expected = {**expected, **{key: config.get(key) for key in MULTI_VECTOR_OPTIONS}}
            for key, value in config.items():
                plain = _plain_modalities(value, expected[key]) if key == "modality_config" else value
                accepted = plain if class_name == "CrossEncoder" else value
                if not _harmless_option(key, accepted, expected):
                    if key == "modality_config" and isinstance(value, dict) and "message" in value:
                        raise UnsupportedError(CHAT_TEMPLATE.format(file=folder / name, folder=folder))
                    raise UnsupportedError(
                        f"{folder / name} sets {key} to {value!r}, which onnxembed does not support in a {class_name}, "
                        "as config_sentence_transformers.json makes it (model_type)"
                    )
            return name, config
    return TRANSFORMER_CONFIGS[0], {}


def takes_messages(config: JsonObject) -> bool:
    """Whether sentence-transformers puts the texts of this Transformer module into the tokenizer's chat template."""
    modalities = config.get("modality_config")
    return isinstance(modalities, dict) and "message" in modalities


def _plain_modalities(value: Any, expected: Any) -> Any:
    """A CrossEncoder's modalities without the chat template's, which `decisions.reranking` decides about."""
    if not isinstance(value, dict) or "message" in expected:
        return value
    message = {**expected["text"], "format": "flat"}
    return {name: entry for name, entry in value.items() if name != "message" or entry != message}


def _harmless_option(key: str, value: Any, expected: Mapping[str, Any]) -> bool:
    """Whether an option of the Transformer module is read elsewhere, or changes nothing."""
    if key in TRANSFORMER_ARGUMENTS:
        return isinstance(value, dict) and value.keys() <= HARMLESS_ARGUMENTS
    if key in expected:
        return bool(value == expected[key])
    return key in TRANSFORMER_HARMLESS | {"max_seq_length", "do_lower_case"}

"""config.json and the sentence-transformers files of a reranker, so that other programs read it too."""

from __future__ import annotations

from pathlib import Path

from onnxembed.facts.facts import Facts
from onnxembed.facts.json_file import write_json
from onnxembed.facts.modules import DENSE_ACTIVATIONS
from onnxembed.facts.transformer import CROSS_ENCODER_EXPECTED
from onnxembed.manifest import Reranking

ACTIVATION_CLASSES = {value: name for name, value in DENSE_ACTIVATIONS.items()}


def write_cross_encoder(facts: Facts, reranking: Reranking, folder: Path) -> None:
    """Write config.json, modules.json, sentence_bert_config.json and config_sentence_transformers.json.

    A reranker with a template has config.json alone: no other program's files say what a pair becomes.
    """
    write_json(folder / "config.json", facts.config)
    if reranking.template or reranking.answers:
        return
    task = "sequence-classification"
    write_json(folder / "sentence_bert_config.json", {"transformer_task": task, **CROSS_ENCODER_EXPECTED[task]})
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    write_json(folder / "modules.json", [module])
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "CrossEncoder",
            "activation_fn": ACTIVATION_CLASSES[reranking.activation.value],
            "prompts": {},
            "default_prompt_name": None,
        },
    )

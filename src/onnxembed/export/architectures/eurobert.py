"""EuroBERT: Llama's layers as an encoder, whose tokens always see each other both ways.

Reference: transformers, models/eurobert.
"""

from __future__ import annotations

from onnxembed.export.architectures.architecture import Architecture, Classifier
from onnxembed.export.architectures.llama import llama
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import Inputs


def eurobert(g: Graph, config: Config, inputs: Inputs) -> Value:
    """EuroBertModel."""
    # Special tokens by name, and the pooling of a task head under its old and new name.
    config.ignore("bos_token", "eos_token", "mask_token", "pad_token", "clf_pooling", "classifier_pooling")
    config.take("rms_norm_eps", float)  # required: Llama's default differs
    return llama(g, config, inputs)


EUROBERT = Architecture(
    build=eurobert,
    prefix="model.",
    heads=r"lm_head|dense|classifier",
    classifier=Classifier("classifier", dense="dense", activation="gelu"),
)

"""Stock transformers classes, loaded as the engines `trace` and `optimum` export them. Needs torch and transformers.

The class is always transformers' own: `auto_map`, which names code that comes with the model, is never followed.
onnxembed's own reader reads the weights, so that no pickle is executed.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable
from importlib import import_module
from itertools import filterfalse
from typing import Any

import ml_dtypes
import numpy as np

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.checkpoint.lora import open_weights
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.engines.engine import Ignored
from onnxembed.export.engines.quiet import quiet
from onnxembed.facts.facts import Facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.manifest import INPUTS, AttentionMode, Precision


def load_stock(facts: Facts, attention: AttentionMode, precision: Precision, ignored: Ignored) -> Any:
    """The stock model in evaluation mode, its attention eager, with exactly the checkpoint's weights.

    Raises UnsupportedError for keys of config.json that the class does not read and weights that the precision
    cannot hold, ModelFilesError for tensors that are missing, left over or of another shape.
    """
    import torch

    transformers: Any = import_module("transformers")
    architecture = ARCHITECTURES[facts.model_type]
    config_class = transformers.CONFIG_MAPPING[facts.model_type]
    _check_config(facts, config_class, architecture.undeclared_keys, ignored.config_keys)
    with quiet():
        config = config_class.from_pretrained(facts.weights_folder)
        config.use_cache = False
        if MODEL_TYPES[facts.model_type].decoder:
            set_attention(config, attention)
        model, loading = transformers.MODEL_MAPPING[config_class].from_pretrained(
            None,
            config=config,
            state_dict=_tensors(facts),
            dtype={"fp32": torch.float32, "fp16": torch.float16}[precision],
            attn_implementation="eager",
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
        )
    class_name = type(model).__name__
    _refuse(facts, f"lacks tensors of a {class_name}", filterfalse(architecture.is_head, loading["missing_keys"]))
    _refuse(
        facts,
        f"has tensors that a {class_name} does not use",
        filterfalse(lambda name: architecture.is_head(name) or ignored.has_tensor(name), loading["unexpected_keys"]),
    )
    _refuse(facts, f"has tensors of other shapes than a {class_name}", (key for key, *_ in loading["mismatched_keys"]))
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise UnsupportedError(f"the weight {name} has values that {precision} cannot hold")
    return model


def open_for_heads(facts: Facts) -> Checkpoint:
    """The checkpoint of a traced encoder; task heads read it by the names that builders use, without the prefix."""
    return open_weights(facts, ARCHITECTURES[facts.model_type].prefix)


def stock_inputs(model: Any) -> list[str]:
    """The inputs that matter to the model: with a single segment, segment ids do not."""
    taken = [name for name in INPUTS if name in inspect.signature(model.forward).parameters]
    segments = getattr(model.config, "type_vocab_size", 0)
    return [name for name in taken if name != "token_type_ids" or segments > 1]


def set_attention(config: Any, attention: AttentionMode) -> None:
    """Tell a decoder of transformers how its tokens see each other, by `is_causal`, which it honors from 5.2 on.

    Where Gemma's own key, use_bidirectional_attention, is set, it says so already and has changed the windows.
    """
    if not (hasattr(type(config), "use_bidirectional_attention") and config.use_bidirectional_attention):
        config.is_causal = attention == "causal"


def _check_config(facts: Facts, config_class: Any, keys: Collection[str], ignored: Collection[str]) -> None:
    """Refuse a config.json with a key that the stock class does not read, and that may change the computation."""
    config = Config.of(facts)
    config.ignore(*config_class().to_dict(), *config_class.attribute_map, *keys)
    config.expect("position_embedding_type", "absolute")  # transformers 5 has no other, and does not look
    config.finish(ignored)


def _tensors(facts: Facts) -> dict[str, Any]:
    """The checkpoint's tensors as torch's, views of the files in their stored types."""
    import torch

    checkpoint = open_weights(facts, "")
    tensors = {}
    for name in checkpoint.names():
        array = checkpoint.read(name) if facts.lora else checkpoint.read_stored(name)
        bits = array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array
        tensor = torch.from_numpy(bits)
        tensors[name] = tensor if bits is array else tensor.view(torch.bfloat16)
    return tensors


def _refuse(facts: Facts, what: str, names: Iterable[str]) -> None:
    strange = sorted(names)
    if strange:
        raise ModelFilesError(f"{facts.folder} {what} ({len(strange)}, as {', '.join(strange[:3])})")

"""What adapter_config.json says: a LoRA adapter of peft, applied to the weights. Standard library only.

Reference: peft 0.21, tuners/lora. Every key is read, known to change nothing, or allowed only with a value that turns
it off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts.json_file import read_json

ADAPTER_CONFIG = "adapter_config.json"

READ = frozenset(
    {
        *("peft_type", "base_model_name_or_path", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"),
        *("lora_bias", "init_lora_weights"),
    }
)
"""Keys that decide how the adapter is merged."""

HARMLESS = {
    "auto_mapping": "names the class that was trained",
    "task_type": "chooses a class, not what the layers compute",
    "inference_mode": "freezes weights",
    "peft_version": "names who wrote the file",
    "revision": "of the base; the base at hand is taken",
    "target_modules": "the adapter's tensors name their layers",
    "exclude_modules": "the adapter's tensors name their layers",
    "layers_to_transform": "the adapter's tensors name their layers",
    "layers_pattern": "the adapter's tensors name their layers",
    "modules_to_save": "the adapter's tensors hold these layers whole",
    "bias": "the adapter's tensors hold the trained biases",
    "fan_in_fan_out": "peft turns it off for torch's Linear, which all layers here are",
    "lora_dropout": "for training only",
    "megatron_core": "names a module that is used only with megatron_config",
    "qalora_group_size": "used only with use_qalora",
    "eva_config": "how the factors began",
    "corda_config": "used only with init_lora_weights corda",
    "lora_ga_config": "used only with init_lora_weights lora_ga",
    "loftq_config": "used only with init_lora_weights loftq",
    "runtime_config": "where the factors are computed",
}
"""Keys that change nothing, each with the reason."""

OFF = frozenset(
    """
    layer_replication trainable_token_indices target_parameters alora_invocation_tokens use_qalora use_bdlora
    arrow_config kasa_config velora_config monteclora_config megatron_config ensure_weight_tying use_dora
    """.split()  # noqa: SIM905  (a word list)
)
"""Keys that change what is computed, and must be null, false or empty."""

# Ways of beginning that leave the base's weights as they are; the others (pissa, olora, corda, loftq, ...) change them.
INITS = (True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LoraFacts:
    """A LoRA adapter: where its tensors lie, its base, and how its factors are scaled."""

    folder: Path
    base: str
    rank: int
    alpha: float
    rank_pattern: Mapping[str, Any]
    alpha_pattern: Mapping[str, Any]
    rslora: bool

    def scaling(self, module: str, rank: int) -> float:
        """The factor of the product of a module's factors, which have this rank.

        Raises ModelFilesError if the config gives them another rank.
        """
        stated = _of_module(self.rank_pattern, module, self.rank)
        if stated != rank:
            raise ModelFilesError(
                f"{self.folder}: the factors of {module} have the rank {rank}, but {ADAPTER_CONFIG} says {stated}"
            )
        alpha = float(_of_module(self.alpha_pattern, module, self.alpha))
        return alpha / (sqrt(rank) if self.rslora else rank)


def read_adapter(folder: Path) -> LoraFacts | None:
    """The LoRA adapter of a folder; None for a folder without an adapter.

    Raises UnsupportedError, by name, for an adapter of another kind and for what cannot be merged.
    """
    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        return None
    config = read_json(file)
    kind, base = config.get("peft_type"), config.get("base_model_name_or_path")
    if kind is None:
        raise ModelFilesError(f"{file} is an adapter's, and names no peft_type: merge it into the weights first")
    if kind != "LORA":
        raise UnsupportedError(
            f"{folder} is a {kind} adapter of {base} ({ADAPTER_CONFIG}), which transformers applies to the model; "
            "onnxembed merges LORA only. Merge it first, where peft is: "
            "PeftModel.from_pretrained(BASE, FOLDER).merge_and_unload()"
        )
    if unknown := sorted(config.keys() - READ - OFF - HARMLESS.keys()):
        raise UnsupportedError(f"{file} has keys that onnxembed does not know: {', '.join(unknown)}")
    for key in sorted(OFF & config.keys()):
        if config[key]:
            raise UnsupportedError(f"{file} sets {key} to {config[key]!r}, which onnxembed does not merge")
    if (start := config.get("init_lora_weights", True)) not in INITS:
        raise UnsupportedError(f"{file}: init_lora_weights {start!r} changes the base's weights, which is not repeated")
    rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float):
        raise ModelFilesError(f"{file}: r is {rank!r} and lora_alpha {alpha!r}, not a rank and a number")
    patterns = [config.get(key) or {} for key in ("rank_pattern", "alpha_pattern")]
    if not all(isinstance(pattern, dict) for pattern in patterns):
        raise ModelFilesError(f"{file}: rank_pattern and alpha_pattern must map names of modules to numbers")
    return LoraFacts(folder, str(base), rank, float(alpha), patterns[0], patterns[1], bool(config.get("use_rslora")))


def _of_module(pattern: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value for a module: that of the first key that matches the end of its name (peft's get_pattern_key)."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), default)

"""What adapter_config.json says: a LoRA adapter of peft, applied to the weights. Standard library only.

Reference: peft 0.21, tuners/lora. Its keys are those of `facts.known.lora`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts.known.lora import LORA
from onnxembed.json_file import read_json

ADAPTER_CONFIG = "adapter_config.json"

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
    dora: bool = False
    """Each row of a merged weight is scaled to a trained length (DoRA, https://arxiv.org/abs/2402.09353)."""

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
    LORA.check(file, config)
    if (start := config.get("init_lora_weights", True)) not in INITS:
        raise UnsupportedError(f"{file}: init_lora_weights {start!r} changes the base's weights, which is not repeated")
    rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float):
        raise ModelFilesError(f"{file}: r is {rank!r} and lora_alpha {alpha!r}, not a rank and a number")
    patterns = [config.get(key) or {} for key in ("rank_pattern", "alpha_pattern")]
    if not all(isinstance(pattern, dict) for pattern in patterns):
        raise ModelFilesError(f"{file}: rank_pattern and alpha_pattern must map names of modules to numbers")
    rslora, dora = (bool(config.get(key)) for key in ("use_rslora", "use_dora"))
    return LoraFacts(folder, str(base), rank, float(alpha), patterns[0], patterns[1], rslora, dora)


def _of_module(pattern: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value for a module: that of the first key that matches the end of its name (peft's get_pattern_key)."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), default)

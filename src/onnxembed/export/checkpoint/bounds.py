"""The numbers that keys of config.json may have, in every architecture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxembed.errors import ModelFilesError


@dataclass(frozen=True)
class Bounds:
    """The numbers that a key may have: finite, and from `least` on, or above it."""

    least: float
    open: bool = False

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and (value > self.least if self.open else value >= self.least)

    def __str__(self) -> str:
        return f"a finite number {'above' if self.open else 'from'} {self.least}{'' if self.open else ' on'}"


COUNT, FROM_0, POSITIVE = Bounds(1), Bounds(0), Bounds(0, open=True)

BOUNDS: Mapping[str, Bounds] = {
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_heads", "n_head", "head_dim"), COUNT),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer", "num_hidden_groups"), COUNT),
    # One layer in none is no pattern.
    **dict.fromkeys(("sliding_window_pattern", "global_attn_every_n_layers"), COUNT),
    **dict.fromkeys(("sliding_window", "local_attention"), FROM_0),
    # ONNX Runtime takes no other epsilon, and the reference gives NaN where the variance is less.
    **dict.fromkeys(("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps", "norm_eps"), FROM_0),
    # What is raised to a power, divided by, or has its logarithm taken.
    **dict.fromkeys(("rope_theta", "global_rope_theta", "local_rope_theta", "rope_local_base_freq"), POSITIVE),
    **dict.fromkeys(
        ("rotary_emb_base", "query_pre_attn_scalar", "factor", "original_max_position_embeddings"), POSITIVE
    ),
    **dict.fromkeys(("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"), POSITIVE),
}
"""The keys whose other numbers have no meaning, or give vectors that are not numbers, wherever they stand."""


def check_bounds(file: str | Path, key: str, value: object) -> None:
    """Raise ModelFilesError, with the file and the key, for a number that the key may not have."""
    if isinstance(value, int | float) and key in BOUNDS and value not in BOUNDS[key]:
        raise ModelFilesError(f"{file}: {key} is {value!r}, not {BOUNDS[key]}")

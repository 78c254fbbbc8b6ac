"""Rotary position embeddings: frequencies from the config, cosines and sines in the graph.

Frequencies are those of transformers (modeling_rope_utils.py), in float32 as there. Angles are computed
in the graph for the T positions of a run, so no table bounds the length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.checkpoint.bounds import check_bounds
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.foreign_errors import foreign_errors

Frequencies = NDArray[np.float32]
RopeSettings = Mapping[str, Any]


@dataclass(frozen=True)
class Rotary:
    """Cosines and sines of a run's tokens by their positions, each [T, d / 2]."""

    graph: Graph
    cos: Value
    sin: Value

    def rotate(self, x: Value, heads: int) -> Value:
        """Rotate queries or keys [B, T, heads * d]: the two halves of each head against each other."""
        return self.graph.rotate(x, self.cos, self.sin, heads)


def rotary(g: Graph, name: str, positions: Value, inv_freq: Frequencies, factor: float = 1.0) -> Rotary:
    """Angles of the tokens' positions, int64 [T].

    `inv_freq` is float32 [d / 2]; `factor` multiplies cosines and sines (yarn); `name` tells tables apart.
    """
    column = g.op("Unsqueeze", g.op("Cast", positions, to=TensorProto.FLOAT), g.integers(1))  # [T, 1]
    angles = g.op("Mul", column, g.constant(f"{name}.inv_freq", inv_freq))  # [T, d / 2]
    tables = []
    for function in ("Cos", "Sin"):
        table = g.op(function, angles)
        tables.append(g.from_float32(g.op("Mul", table, g.float32(factor)) if factor != 1.0 else table))
    return Rotary(g, *tables)


def rope_settings(config: Config, layer_type: str | None = None, theta: float = 10000.0) -> RopeSettings:
    """rope_type, rope_theta and the rest, from either generation of keys.

    transformers 5 writes `rope_parameters` (per layer type where those differ); earlier releases wrote
    `rope_theta` and `rope_scaling`, whose `type` is now `rope_type`.
    """
    parameters = config.take("rope_parameters", dict, {})
    if layer_type is not None:
        parameters = parameters.get(layer_type) or {}
    scaling = config.take("rope_scaling", dict, {})
    settings = {"rope_theta": config.take("rope_theta", float, theta), **scaling, **parameters}
    rope_type = settings.pop("type", "default")
    return {"rope_type": rope_type, **settings}


def frequencies(
    settings: RopeSettings, head_dim: int, max_positions: int, where: str, *, bounded: bool = True
) -> tuple[Frequencies, float]:
    """inv_freq [d / 2] and the factor of cosines and sines; `where` names the config in errors.

    `bounded` says that no text is longer than `max_positions`, beyond which some scalings change with the length.
    """
    rope_type = settings["rope_type"]
    if rope_type not in _SCALINGS:
        raise UnsupportedError(f"{where}: rope_type {rope_type!r} is not one onnxembed builds: {', '.join(_SCALINGS)}")
    if rope_type == "dynamic" and not bounded:
        raise UnsupportedError(f"{where}: rope_type 'dynamic' changes with the length of a text, beyond what is built")
    compute, required, optional = _SCALINGS[rope_type]
    given = {key: value for key, value in settings.items() if value is not None}
    if unknown := sorted(given.keys() - {"rope_type", "rope_theta", "partial_rotary_factor"} - required - optional):
        raise UnsupportedError(f"{where}: rope parameters {', '.join(unknown)} are unknown for rope_type {rope_type!r}")
    if given.get("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedError(f"{where}: partial_rotary_factor is not 1, which onnxembed does not build")
    if missing := sorted(required - given.keys()):
        raise ModelFilesError(f"{where}: rope_type {rope_type!r} needs {', '.join(missing)}")
    for key, value in given.items():
        if key != "rope_type" and not isinstance(value, int | float):
            raise ModelFilesError(f"{where}: the rope parameter {key} is {value!r}, not a number")
        check_bounds(f"{where}: rope parameters", key, value)
    with foreign_errors(f"{where}: the rope parameters {given!r} give no frequencies"), np.errstate(all="ignore"):
        inv_freq, scale = compute(given, head_dim, max_positions)
    if not np.isfinite(inv_freq).all():
        raise ModelFilesError(f"{where}: the rope parameters {given!r} give frequencies that are not finite")
    return inv_freq, scale


def plain(theta: float, head_dim: int) -> Frequencies:
    """theta ** (-2i / d)."""
    return np.float32(1) / _powers(theta, head_dim)


def _powers(theta: float, head_dim: int) -> Frequencies:
    """theta ** (2i / d), rounded to float32 before it is used, as in torch."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    powers: Frequencies = np.power(float(theta), exponents.astype(np.float64)).astype(np.float32)
    return powers


def _default(settings: RopeSettings, head_dim: int, max_positions: int) -> tuple[Frequencies, float]:
    return plain(settings["rope_theta"], head_dim), 1.0


def _linear(settings: RopeSettings, head_dim: int, max_positions: int) -> tuple[Frequencies, float]:
    return plain(settings["rope_theta"], head_dim) / np.float32(settings["factor"]), 1.0


def _dynamic(settings: RopeSettings, head_dim: int, max_positions: int) -> tuple[Frequencies, float]:
    """Up to max_position_embeddings, which bounds our texts, dynamic scaling leaves the frequencies alone."""
    return plain(settings["rope_theta"], head_dim), 1.0


def _llama3(settings: RopeSettings, head_dim: int, max_positions: int) -> tuple[Frequencies, float]:
    """Long waves are slowed by `factor`, short ones kept, those in between blended."""
    inv_freq = plain(settings["rope_theta"], head_dim)
    old = settings.get("original_max_position_embeddings", max_positions)
    low, high, factor = settings["low_freq_factor"], settings["high_freq_factor"], np.float32(settings["factor"])
    # torch divides a number by a tensor as the number times the tensor's rounded reciprocal.
    wavelength = np.float32(2 * math.pi) * (np.float32(1) / inv_freq)
    smooth = ((old * (np.float32(1) / wavelength) - low) / (high - low)).astype(np.float32)
    blended = (1 - smooth) * inv_freq / factor + smooth * inv_freq
    slowed = np.where(wavelength > old / low, inv_freq / factor, inv_freq)
    between = (wavelength >= old / high) & (wavelength <= old / low)
    return np.where(between, blended, slowed).astype(np.float32), 1.0


def _yarn(settings: RopeSettings, head_dim: int, max_positions: int) -> tuple[Frequencies, float]:
    """YaRN (https://arxiv.org/abs/2309.00071): a ramp over the dimensions from kept to slowed frequencies."""
    theta, old = settings["rope_theta"], settings.get("original_max_position_embeddings", max_positions)
    factor = settings.get("factor", max_positions / old)
    attention_factor = settings.get("attention_factor", _yarn_scale(settings, factor))

    def dimension(rotations: float) -> float:
        return head_dim * math.log(old / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(settings.get("beta_fast") or 32), dimension(settings.get("beta_slow") or 1)
    if settings.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    ramp = (np.arange(head_dim // 2, dtype=np.float32) - low) / (high - low if high != low else 0.001)
    keep = 1 - np.clip(ramp, 0, 1)
    powers = _powers(theta, head_dim)
    slowed, kept = np.float32(1) / (np.float32(factor) * powers), np.float32(1) / powers
    return (slowed * (1 - keep) + kept * keep).astype(np.float32), attention_factor


def _yarn_scale(settings: RopeSettings, factor: float) -> float:
    def scale(by: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

    mscale, mscale_all_dim = settings.get("mscale"), settings.get("mscale_all_dim")
    return scale(mscale) / scale(mscale_all_dim) if mscale and mscale_all_dim else scale(1)


# rope_type -> its frequencies, the parameters besides theta that it needs, and those that it may have.
_SCALINGS = {
    "default": (_default, set[str](), set[str]()),
    "linear": (_linear, {"factor"}, set[str]()),
    "dynamic": (_dynamic, {"factor"}, {"original_max_position_embeddings"}),
    "llama3": (_llama3, {"factor", "low_freq_factor", "high_freq_factor"}, {"original_max_position_embeddings"}),
    "yarn": (
        _yarn,
        set[str](),
        {
            "factor",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "original_max_position_embeddings",
            "truncate",
        },
    ),
}

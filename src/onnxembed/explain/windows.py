"""Attention windows, as data: which layers see only near tokens, and how far those see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from onnxembed.explain.setup import Hypothesis

WINDOW_KEYS = ("local_attention", "sliding_window")
"""The keys of config.json that hold the window: ModernBERT's counts both sides, the others' one."""

FULL, SLIDING = "full_attention", "sliding_attention"
"""The types of layers, as layer_types names them."""

# Wider than any text.
_UNBOUNDED = 2**20


def windows(config: Mapping[str, Any]) -> Iterator[Hypothesis]:
    """Another window, or other layers that have one; nothing for a model in which every token sees all of a text."""
    key = next((key for key in WINDOW_KEYS if isinstance(config.get(key), int)), None)
    types = _layer_types(config)
    if key is None or SLIDING not in types or config.get("use_sliding_window") is False:
        return
    own = config[key]
    ours = f"as config.json says ({key}: {own})"
    words = {"window": f"{key}: {own}"}
    yield _window("let every layer see the whole text", ours, words, {key: _UNBOUNDED})
    step = 2 if key == WINDOW_KEYS[0] else 1
    for value, theirs in (
        (own // 2, "half as wide"),
        (own * 2, "twice as wide"),
        (own - step, "one token narrower"),
        (own + step, "one token wider"),
    ):
        if value > 0:
            yield _window(f"have a window {theirs} in the local layers", ours, words, {key: value})
    if "layer_types" in config or FULL in types:
        yield from _patterns(types)


def _window(theirs: str, ours: str, words: Mapping[str, str], changed: Mapping[str, Any]) -> Hypothesis:
    return Hypothesis("attention window", theirs, ours, build={"windows": changed}, words=words)


def _patterns(types: list[str]) -> Iterator[Hypothesis]:
    """Other layers that see the whole text; rotary positions of a layer follow its type."""
    counted = f"{types.count(FULL)} of {len(types)}, from layer {types.index(FULL)}" if FULL in types else "no layer"
    ours = f"as config.json says (global: {counted})"
    words = {"window": f"global layers: {counted}"}
    others = {
        "have only global layers": [FULL] * len(types),
        "have only local layers": [SLIDING] * len(types),
        "have their global layers one layer later": [types[-1], *types[:-1]],
        "have their global layers one layer earlier": [*types[1:], types[0]],
    }
    for theirs, changed in others.items():
        if changed != types:
            yield _window(theirs, ours, words, {"layer_types": changed})


def _layer_types(config: Mapping[str, Any]) -> list[str]:
    """The type of every layer, from the list of config.json or from what it was made of."""
    if "layer_types" in config:
        return list(config["layer_types"] or ())
    layers = range(config.get("num_hidden_layers", 0))
    if WINDOW_KEYS[0] in config:
        period = config.get("global_attn_every_n_layers", 3)
        return [SLIDING if layer % period else FULL for layer in layers]
    if "sliding_window_pattern" in config:
        period = config["sliding_window_pattern"]
        return [SLIDING if (layer + 1) % period else FULL for layer in layers]
    first = config.get("max_window_layers", 0)
    return [SLIDING if layer >= first else FULL for layer in layers]

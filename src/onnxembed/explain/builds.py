"""What another program may do otherwise inside the encoder, as data: attention, activation, positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from onnxembed.explain.setup import Hypothesis
from onnxembed.explain.windows import FULL, SLIDING, windows
from onnxembed.manifest import Manifest

Config = Mapping[str, Any]

BIDIRECTIONAL = "use_bidirectional_attention"
"""Gemma's key for attention; the window of its local layers follows it."""

ACTIVATION_KEYS = ("hidden_act", "hidden_activation", "activation", "activation_function")
"""The keys of config.json that name the activation, by family."""

EXACT, APPROXIMATE = ("gelu", "gelu_python"), ("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_accurate")
"""GELU with erf, and its approximation with tanh, under the names that config.json gives them."""

THETAS = (10_000.0, 160_000.0, 500_000.0, 1_000_000.0)
"""Bases of rotary positions that libraries assume or models have."""

FACTORS = (2.0, 4.0, 8.0)
"""Factors of linear scaling of positions that people set to take longer texts."""

THETA_KEYS = ("rope_theta", "global_rope_theta", "rotary_emb_base")
"""The keys of config.json that hold the base, by generation and family."""

LOCAL_THETA_KEYS = ("local_rope_theta", "rope_local_base_freq")
"""Those that hold the base of the layers with a window."""

_ROPE_KEYS = (*THETA_KEYS, *LOCAL_THETA_KEYS, "rope_parameters", "rope_scaling")

COUNTED_FROM_ZERO = ("bert", "electra", "distilbert")
"""Families whose positions are rows of a table, counted from 0."""

COUNTED_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Families whose positions are rows of a table, counted from the one after the padding token's id."""


def builds(manifest: Manifest, config: Config) -> Iterator[Hypothesis]:
    """The changes that need another graph."""
    yield _attention(manifest)
    yield from _activations(config)
    yield from _positions(manifest, config)
    yield from rope_scalings(config)
    yield from windows(config)


def first_position(manifest: Manifest, config: Config) -> int:
    """The row of the table of positions that the first token has."""
    counted = manifest.model.model_type in COUNTED_FROM_PADDING
    return int(config.get("pad_token_id", 1)) + 1 if counted else 0


def _attention(manifest: Manifest) -> Hypothesis:
    own = manifest.model.attention
    words = {"causal": "let tokens see only earlier ones (causal)", "bidirectional": "let all tokens see each other"}
    other = "bidirectional" if own.value == "causal" else "causal"
    return Hypothesis(
        "attention",
        words[other],
        f"{words[own.value]} ({own.reason})",
        build={"attention": other},
        words={"causal": str(own.value == "causal"), "lowered": str(own.value == "causal").lower()},
    )


def _activations(config: Config) -> Iterator[Hypothesis]:
    for key in ACTIVATION_KEYS:
        own = config.get(key)
        if own in EXACT or own in APPROXIMATE:
            other, theirs = ("gelu_pytorch_tanh", "tanh") if own in EXACT else ("gelu", "erf")
            yield Hypothesis(
                "activation",
                f"compute GELU with {theirs}",
                f"as config.json says ({key}: {own})",
                build={"activation": {key: other}},
                words={"key": key, "activation": str(own)},
            )


def _positions(manifest: Manifest, config: Config) -> Iterator[Hypothesis]:
    if manifest.model.model_type not in (*COUNTED_FROM_ZERO, *COUNTED_FROM_PADDING):
        return
    own = first_position(manifest, config)
    ours = f"count them from {own}" + (", after the padding token's id" if own else "")
    for first in range(3):
        if first != own:
            theirs, words = f"count positions from {first}", {"first": str(own)}
            yield Hypothesis("positions", theirs, ours, build={"shift": first - own}, words=words)


def rope_scalings(config: Config) -> Iterator[Hypothesis]:
    """Another base, or another scaling, of rotary positions; nothing for a model without them."""
    if not any(key in config for key in _ROPE_KEYS):
        return
    words = {"rope": ", ".join(f"{key}: {config[key]}" for key in _ROPE_KEYS if config.get(key) is not None)}
    ours = f"as config.json says ({words['rope']})"
    for theta in THETAS:
        if (changed := _changed(config, rope_theta=theta)) != _changed(config):
            theirs = f"turn positions with the base {theta:g} (rope_theta)"
            yield Hypothesis("rotary positions", theirs, ours, build={"rope": changed}, words=words)
    for theirs, changed in _in_all_layers(config):
        yield Hypothesis("rotary positions", theirs, ours, build={"rope": changed}, words=words)
    if (plain := _unscaled(config)) != _changed(config):
        theirs = "do not scale rotary positions (rope_scaling)"
        yield Hypothesis("rotary positions", theirs, ours, build={"rope": plain}, words=words)
        return
    for factor in FACTORS:
        scaled = _changed(config, rope_type="linear", factor=factor)
        theirs = f"scale rotary positions by {factor:g} (rope_scaling: linear)"
        yield Hypothesis("rotary positions", theirs, ours, build={"rope": scaled}, words=words)


def _in_all_layers(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """The settings of the global layers in the local ones too, and the other way, where the two differ."""
    parameters = config.get("rope_parameters") or {}
    if all(isinstance(parameters.get(layer_type), dict) for layer_type in (FULL, SLIDING)):
        for layer_type, words in _OF_LAYERS.items():
            one = {**parameters, FULL: parameters[layer_type], SLIDING: parameters[layer_type]}
            if one != parameters:
                yield words, {**_changed(config), "rope_parameters": one}
        return
    local = next((key for key in LOCAL_THETA_KEYS if config.get(key) is not None), None)
    theta = next((key for key in THETA_KEYS if config.get(key) is not None), None)
    if local and theta and config[local] != config[theta]:
        yield _OF_LAYERS[FULL], {**_changed(config), local: config[theta]}
        yield _OF_LAYERS[SLIDING], {**_changed(config), theta: config[local]}


_OF_LAYERS = {
    FULL: "turn positions in local layers as in global ones",
    SLIDING: "turn positions in global layers as in local ones",
}


def _changed(config: Config, **values: Any) -> dict[str, Any]:
    """The keys about rotary positions with other values in them, under either generation of keys."""
    kept: dict[str, Any] = {key: config[key] for key in _ROPE_KEYS if config.get(key) is not None}
    if "rope_parameters" in kept:
        return {**kept, "rope_parameters": _in_parameters(kept["rope_parameters"], values)}
    theta = values.pop("rope_theta", None)
    if theta is not None:
        kept.update({key: theta for key in THETA_KEYS if key in kept} or {"rope_theta": theta})
    if values:
        kept["rope_scaling"] = {**kept.get("rope_scaling", {}), **values}
    return kept


def _in_parameters(parameters: Config, values: Config) -> dict[str, Any]:
    """rope_parameters with other values; where layer types have their own, those of full attention change."""
    if not any(isinstance(value, dict) for value in parameters.values()):
        return {**parameters, **values}
    return {**parameters, FULL: {**(parameters.get(FULL) or {}), **values}}


def _unscaled(config: Config) -> dict[str, Any]:
    """The keys about rotary positions without a scaling; as they are if they have none."""
    kept = _changed(config)
    if "rope_parameters" in kept:
        return {**kept, "rope_parameters": _plain(kept["rope_parameters"])}
    scaling = kept.get("rope_scaling")
    if scaling is None or "default" in (scaling.get("rope_type"), scaling.get("type")):
        return kept
    return {**kept, "rope_scaling": None}


def _plain(parameters: Config) -> dict[str, Any]:
    if any(isinstance(value, dict) for value in parameters.values()):
        return {name: _plain(value) if isinstance(value, dict) else value for name, value in parameters.items()}
    base = {"rope_theta": parameters["rope_theta"]} if "rope_theta" in parameters else {}
    return {**base, "rope_type": "default"} if parameters.get("rope_type", "default") != "default" else dict(parameters)

"""Rotary frequencies against transformers' own, for every scaling and both generations of keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.rotary import frequencies, rope_settings

MAX_POSITIONS = 8192

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 2048,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}

SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "linear", "factor": 3.7},
    {"rope_type": "dynamic", "factor": 3.0},
    {"rope_type": "dynamic", "factor": 2.2},
    LLAMA3,
    {**LLAMA3, "factor": 32, "low_freq_factor": 2, "high_freq_factor": 5, "original_max_position_embeddings": 77},
    {key: value for key, value in LLAMA3.items() if key != "original_max_position_embeddings"},
    YARN,
    {**YARN, "factor": 1.0},
    {**YARN, "factor": None},
    {**YARN, "attention_factor": 0.7},
    {**YARN, "mscale": 0.7, "mscale_all_dim": 1.1},
    {**YARN, "mscale": 0.7},
    {**YARN, "beta_fast": 20.0, "beta_slow": 2.0, "truncate": False},
    {**YARN, "original_max_position_embeddings": 3},
    {key: value for key, value in YARN.items() if key != "original_max_position_embeddings"},
]
HEADS = [(10000.0, 64), (1e6, 128), (160000.0, 20), (500.0, 4)]


def ours(head_dim: int = 64, **values: Any) -> tuple[NDArray[np.float32], float]:
    return frequencies(rope_settings(Config(values, "config.json")), head_dim, MAX_POSITIONS, "config.json")


def reference(head_dim: int, parameters: dict[str, Any]) -> tuple[NDArray[np.float32], float]:
    rope_utils = pytest.importorskip("transformers.modeling_rope_utils", reason="needs the [torch] extra")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = llama.LlamaConfig(head_dim=head_dim, max_position_embeddings=MAX_POSITIONS, rope_parameters=parameters)
    functions = {
        **rope_utils.ROPE_INIT_FUNCTIONS,
        "default": llama.LlamaRotaryEmbedding.compute_default_rope_parameters,
    }
    inv_freq, factor = functions[parameters["rope_type"]](config)
    return inv_freq.numpy(), factor


@pytest.mark.torch
@pytest.mark.parametrize(("theta", "head_dim"), HEADS)
@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
def test_frequencies_are_those_of_transformers(scaling: dict[str, Any], theta: float, head_dim: int) -> None:
    expected, expected_factor = reference(head_dim, {**scaling, "rope_theta": theta})
    actual, factor = ours(head_dim, rope_parameters={**scaling, "rope_theta": theta})
    assert actual.dtype == expected.dtype == np.float32
    # Bit for bit, but for powers of theta that torch's vector code rounds otherwise than to the nearest float.
    np.testing.assert_array_max_ulp(actual, expected, maxulp=1)
    assert (actual != expected).mean() <= 0.02
    assert factor == expected_factor


OLDER = [
    ({"rope_theta": 500.0}, {"rope_type": "default", "rope_theta": 500.0}),
    ({"rope_theta": 500, "rope_scaling": None}, {"rope_type": "default", "rope_theta": 500.0}),
    ({}, {"rope_type": "default", "rope_theta": 10000.0}),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_type": "linear", "factor": 2.0}),
    ({"rope_theta": 7.0, "rope_scaling": {**YARN, "type": "yarn"}}, {**YARN, "rope_theta": 7.0}),
    ({"rope_scaling": {**LLAMA3, "type": "linear"}}, LLAMA3),
    ({"rope_theta": 7.0, "rope_scaling": {**LLAMA3, "rope_theta": 9.0}}, {**LLAMA3, "rope_theta": 9.0}),
]


@pytest.mark.parametrize(("older", "newer"), OLDER, ids=str)
def test_both_generations_of_keys_mean_the_same(older: dict[str, Any], newer: dict[str, Any]) -> None:
    actual, factor = ours(**older)
    expected, expected_factor = ours(rope_parameters=newer)
    np.testing.assert_array_equal(actual, expected)
    assert factor == expected_factor


def test_layer_types_have_parameters_of_their_own() -> None:
    parameters = {"full_attention": {**YARN, "rope_theta": 5e5}, "sliding_attention": None}
    config = Config({"rope_parameters": parameters, "rope_theta": 300.0}, "config.json")
    assert rope_settings(config, "full_attention") == {**YARN, "rope_theta": 5e5}
    assert rope_settings(config, "sliding_attention") == {"rope_type": "default", "rope_theta": 300.0}
    assert rope_settings(Config({}, "config.json"), "full_attention", theta=1e6)["rope_theta"] == 1e6


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"rope_type": "longrope", "short_factor": [1.0]}, UnsupportedError, "rope_type 'longrope'.*default, linear"),
        ({"rope_type": "default", "factor": 2.0}, UnsupportedError, "factor are unknown for rope_type 'default'"),
        ({"rope_type": "default", "mrope_section": [1, 1]}, UnsupportedError, "mrope_section"),
        ({**YARN, "low_freq_factor": 1.0}, UnsupportedError, "low_freq_factor"),
        ({"partial_rotary_factor": 0.5}, UnsupportedError, "partial_rotary_factor"),
        ({"rope_type": "linear"}, ModelFilesError, "'linear' needs factor"),
        ({"rope_type": "linear", "factor": None}, ModelFilesError, "'linear' needs factor"),
        ({"rope_type": "llama3", "factor": 8.0}, ModelFilesError, "needs high_freq_factor, low_freq_factor"),
        ({"rope_type": "linear", "factor": "2"}, ModelFilesError, "factor is '2', not a number"),
    ],
    ids=str,
)
def test_an_unsupported_scaling_is_refused_by_name(
    parameters: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"config.json: .*{message}"):
        ours(rope_parameters=parameters)
    with pytest.raises(error, match=f"config.json: .*{message}"):
        ours(rope_scaling=parameters)


def test_dynamic_scaling_is_refused_where_texts_may_outgrow_the_positions() -> None:
    settings = rope_settings(Config({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "config.json"))
    with pytest.raises(UnsupportedError, match="rope_type 'dynamic'"):
        frequencies(settings, 64, MAX_POSITIONS, "config.json", bounded=False)

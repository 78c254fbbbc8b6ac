"""Changes inside the encoder, as keys of config.json under either generation of names."""

from __future__ import annotations

from typing import Any

import pytest

from onnxembed.explain.builds import rope_scalings

LINEAR = {"rope_type": "linear", "factor": 2.0}
PLAIN = {"rope_theta": 10_000.0, "rope_type": "default"}


def unscaled(config: dict[str, Any]) -> list[Any]:
    """The keys without a scaling, as far as that is a change."""
    return [each.build["rope"] for each in rope_scalings(config) if each.theirs.startswith("do not scale")]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"rope_theta": 10_000.0, "rope_scaling": LINEAR}, {"rope_theta": 10_000.0, "rope_scaling": None}),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, {"rope_scaling": None}),
        ({"rope_parameters": {**LINEAR, "rope_theta": 10_000.0}}, {"rope_parameters": PLAIN}),
        (
            {"rope_parameters": {"full_attention": {**LINEAR, "rope_theta": 10_000.0}, "sliding_attention": PLAIN}},
            {"rope_parameters": {"full_attention": PLAIN, "sliding_attention": PLAIN}},
        ),
    ],
    ids=str,
)
def test_scaled_positions_are_tried_without_their_scaling(config: dict[str, Any], expected: dict[str, Any]) -> None:
    assert unscaled(config) == [expected]
    assert not any("scale rotary positions by" in each.theirs for each in rope_scalings(config))


@pytest.mark.parametrize(
    "config",
    [
        {"rope_theta": 10_000.0},
        {"rope_theta": 10_000.0, "rope_scaling": None},
        {"rope_theta": 10_000.0, "rope_scaling": {"type": "default"}},
        {"rope_parameters": PLAIN, "rope_scaling": None},
    ],
    ids=str,
)
def test_positions_that_are_not_scaled_are_tried_with_a_scaling(config: dict[str, Any]) -> None:
    assert unscaled(config) == []
    factors = [each.theirs for each in rope_scalings(config) if each.theirs.startswith("scale rotary positions by")]
    assert [words.split()[4] for words in factors] == ["2", "4", "8"]


def test_the_bases_of_global_and_local_layers_are_tried_in_all_layers() -> None:
    config = {"global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0}
    tried = {each.theirs: each.build["rope"] for each in rope_scalings(config) if " layers as in " in each.theirs}
    assert tried == {
        "turn positions in local layers as in global ones": dict.fromkeys(config, 160_000.0),
        "turn positions in global layers as in local ones": dict.fromkeys(config, 10_000.0),
    }

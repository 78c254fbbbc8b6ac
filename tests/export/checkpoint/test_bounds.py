"""Numbers of config.json that have no meaning are refused by the key's name; others give the reference's vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed.errors import ModelFilesError
from onnxembed.export.checkpoint.bounds import BOUNDS, check_bounds
from onnxembed.export.graph.attention import UNBOUNDED
from onnxembed.facts.facts import read_facts
from parity import SMALL, Family, batch, load_reference, open_folder, run, torch

pytestmark = pytest.mark.torch

DECODER = {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 210, "pad_token_id": 3}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
MODERNBERT = {**SMALL, "max_position_embeddings": 210, "pad_token_id": 3, "local_attention": 12}
GEMMA3 = {**DECODER, "head_dim": 12, "sliding_window": 9}
FAMILIES: dict[str, tuple[Family, dict[str, Any]]] = {
    "bert": (Family("bert", {**SMALL, "max_position_embeddings": 210}), {}),
    "roberta": (Family("roberta", {**SMALL, "max_position_embeddings": 230, "type_vocab_size": 1}), {}),
    "modernbert": (Family("modernbert", MODERNBERT), {}),
    "llama": (Family("llama", DECODER, std=0.1), {"attention": "causal"}),
    "mistral": (Family("mistral", {**DECODER, "sliding_window": 11}, std=0.1), {"attention": "causal"}),
    "qwen2": (Family("qwen2", DECODER, std=0.1), {"attention": "causal"}),
    "gemma3": (Family("gemma3_text", GEMMA3, std=0.1), {"attention": "causal"}),
}

NOT_COUNTS: list[object] = [0, -1, 1.5, "2", True]
NOT_EPSILONS: list[object] = [-1, -1e-5, float("nan"), float("inf"), "8", True, []]

REFUSED: list[tuple[str, dict[str, Any]]] = [
    *(("bert", {"layer_norm_eps": value}) for value in NOT_EPSILONS),
    *(("llama", {"rms_norm_eps": value}) for value in NOT_EPSILONS),
    *(("modernbert", {"norm_eps": value}) for value in NOT_EPSILONS),
    *(("bert", {"num_hidden_layers": value}) for value in NOT_COUNTS),
    *(("bert", {"num_attention_heads": value}) for value in NOT_COUNTS),
    *(("llama", {"num_key_value_heads": value}) for value in NOT_COUNTS),
    *(("mistral", {"sliding_window": value}) for value in NOT_COUNTS),
    *(("gemma3", {"sliding_window": value}) for value in NOT_COUNTS),
    *(("gemma3", {"query_pre_attn_scalar": value}) for value in (0, -1)),
    *(("gemma3", {"layer_types": None, "sliding_window_pattern": value}) for value in (0, -2)),
    *(("modernbert", {"layer_types": None, "global_attn_every_n_layers": value}) for value in (0, -2)),
    *(("llama", {"rope_parameters": {**ROPE, "rope_theta": value}}) for value in (0, -1, float("nan"), "1", 1e-60)),
    *(("llama", {"rope_parameters": {**ROPE, "rope_type": "linear", "factor": value}}) for value in (0, -2.0)),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1.0}}),
    ("modernbert", {"local_attention": -1}),
    ("llama", {"max_position_embeddings": -1}),
    ("roberta", {"pad_token_id": -1}),
]
TAKEN: list[tuple[str, dict[str, Any]]] = [
    *(("bert", {"layer_norm_eps": value}) for value in (0.0, 1.5, 1e30)),
    *(("modernbert", {"local_attention": value}) for value in (0, 1, 10**12)),
    *(("mistral", {"sliding_window": value}) for value in (1, UNBOUNDED - 1, 10**12)),
    ("qwen2", {"sliding_window": 0, "use_sliding_window": False}),
    ("gemma3", {"sliding_window_pattern": 0}),
    ("bert", {"pad_token_id": -1}),
    ("llama", {"pad_token_id": -1}),
    ("llama", {"rope_parameters": {**ROPE, "rope_theta": 1}}),
]


def saved(folder: Path, family: str, changes: dict[str, Any]) -> Path:
    """A checkpoint with keys changed, as they stand in the file."""
    FAMILIES[family][0].save(folder)
    file = folder / "config.json"
    kept = {key: value for key, value in {**json.loads(file.read_text()), **changes}.items() if value is not None}
    file.write_text(json.dumps(kept))
    return folder


def named(case: tuple[str, dict[str, Any]]) -> str:
    return f"{case[0]} {json.dumps(case[1])}"


@pytest.mark.parametrize("case", REFUSED, ids=named)
def test_numbers_without_a_meaning_are_refused_by_name(tmp_path: Path, case: tuple[str, dict[str, Any]]) -> None:
    family, changes = case
    folder = saved(tmp_path / "checkpoint", family, changes)
    key = [*changes][-1]
    key = "rope" if key == "rope_parameters" else key
    with pytest.raises(ModelFilesError, match=rf"config.json: .*{key}"):
        open_folder(folder, tmp_path, **FAMILIES[family][1])


@pytest.mark.parametrize("case", TAKEN, ids=named)
def test_numbers_that_the_reference_takes_give_its_vectors(tmp_path: Path, case: tuple[str, dict[str, Any]]) -> None:
    family, changes = case
    folder = saved(tmp_path / "checkpoint", family, {})
    feeds = batch(read_facts(folder), (3, 17, "right"))
    saved(folder, family, changes)
    model = load_reference(folder)
    with torch.no_grad():
        read = {name: torch.tensor(feeds[name]) for name in ("input_ids", "attention_mask")}
        if "type_vocab_size" in FAMILIES[family][0].config or family == "bert":
            read["token_type_ids"] = torch.tensor(feeds["token_type_ids"])
        hidden = model(**read).last_hidden_state.numpy()
    ours = run(open_folder(folder, tmp_path, **FAMILIES[family][1]), "token_embeddings", feeds)
    real = feeds["attention_mask"] == 1
    assert np.abs(ours[real] - hidden[real]).max() <= 1e-5 * max(1, np.abs(hidden).max())


@pytest.mark.parametrize("key", ["factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"])
def test_what_is_divided_by_or_has_its_logarithm_taken_is_above_0(key: str) -> None:
    check_bounds("c", key, 0.5)
    for value in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ModelFilesError, match=f"^c: {key} is {value}, not a finite number above 0$"):
            check_bounds("c", key, value)


def test_the_bounds_are_words_of_a_sentence() -> None:
    with pytest.raises(ModelFilesError, match=r"^c: rope_theta is 0, not a finite number above 0$"):
        check_bounds("c", "rope_theta", 0)
    with pytest.raises(ModelFilesError, match=r"^c: n_heads is 0, not a finite number from 1 on$"):
        check_bounds("c", "n_heads", 0)
    check_bounds("c", "hidden_size", 0)  # of which a tensor's shape says more
    assert 0 in BOUNDS["norm_eps"]

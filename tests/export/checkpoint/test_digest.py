"""The hash of a checkpoint's weights changes with what decides vectors, and with nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from onnxembed.export.checkpoint.digest import tensors_digest
from onnxembed.facts.adapter import LoraFacts
from onnxembed.facts.facts import read_facts
from tiny import write_encoder


def test_a_weight_counts_and_a_buffer_of_integers_does_not(tmp_path: Path) -> None:
    write_encoder(tmp_path, "bert")
    file, facts = tmp_path / "model.safetensors", read_facts(tmp_path)
    own, weights = tensors_digest(facts), load_file(file)
    save_file({**weights, "embeddings.position_ids": np.arange(8)}, file)
    assert tensors_digest(facts) == own
    name = sorted(weights)[-1]
    save_file({**weights, name: weights[name] + np.float32(1)}, file)
    assert tensors_digest(facts) != own


def test_an_adapter_counts(tmp_path: Path) -> None:
    write_encoder(tmp_path / "base", "bert")
    facts = read_facts(tmp_path / "base")
    adapted = replace(facts, lora=LoraFacts(tmp_path, "base", 1, 1.0, {}, {}, False))
    digests = {tensors_digest(facts)}
    for value in (1, 2):
        save_file({"a.lora_A.weight": np.full((1, 4), value, np.float32)}, tmp_path / "adapter_model.safetensors")
        digests.add(tensors_digest(adapted))
    assert len(digests) == 3

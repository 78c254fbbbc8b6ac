"""The decisions about a folder, with the values of `Flags` as keywords."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxembed.decisions.decide import decide
from onnxembed.decisions.embedding import EmbeddingDecisions
from onnxembed.decisions.encoder import EncoderDecisions
from onnxembed.decisions.flags import Flags
from onnxembed.facts.facts import read_facts
from onnxembed.recipes.recipe import Recipe


def decide_encoder(folder: Path, recipe: Recipe | None = None, **flags: Any) -> EncoderDecisions:
    return decide(read_facts(folder), Flags(**flags), recipe).encoder


def decide_embedding(folder: Path, recipe: Recipe | None = None, **flags: Any) -> EmbeddingDecisions:
    embedding = decide(read_facts(folder), Flags(**flags), recipe).embedding
    assert embedding is not None
    return embedding

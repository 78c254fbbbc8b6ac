"""The weights of a graph, read back under their names in the checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxembed.errors import UnsupportedError
from onnxembed.explain.stored_weights import StoredWeights
from onnxembed.export.checkpoint.tensors import Checkpoint

GRAPH = "onnx/model.onnx"


def test_every_weight_is_that_of_the_checkpoint(artifact: Path, checkpoint: Path) -> None:
    stored, published = StoredWeights(artifact, artifact / GRAPH), Checkpoint(checkpoint, "bert.")
    names = [name for name in published.names() if not name.startswith("pooler")]
    assert len(names) == 37
    for name in names:
        assert stored.shape(name) == published.shape(name)
        np.testing.assert_array_equal(stored.read(name), published.read(name))


def test_a_table_is_shifted_and_ends_with_its_last_row(artifact: Path, checkpoint: Path) -> None:
    name = "embeddings.position_embeddings.weight"
    table = Checkpoint(checkpoint, "bert.").read(name)
    later = StoredWeights(artifact, artifact / GRAPH, {name: 2}).read(name)
    np.testing.assert_array_equal(later, np.concatenate([table[2:], table[-1:], table[-1:]]))
    with pytest.raises(UnsupportedError, match="no table of positions"):
        StoredWeights(artifact, artifact / GRAPH, {"nothing": 1})

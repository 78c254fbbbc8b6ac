"""Graphs made on demand take no more room than is allowed."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.explain import analysis
from onnxembed.explain.setup import Build
from onnxembed.manifest import TOKEN_EMBEDDINGS

CAUSAL, LATER = Build(attention="causal"), Build(shift=1)


@pytest.mark.parametrize(("room", "opened_again"), [(0, True), (2**30, False)])
def test_the_graph_used_longest_ago_makes_room_and_is_built_again(
    model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch, room: int, *, opened_again: bool
) -> None:
    monkeypatch.setattr(analysis, "ROOM", room)
    feeds = {name: np.ones((1, 5), np.int64) for name in model.manifest.model.inputs}
    with closing(analysis.AnalysisGraphs(model)) as graphs:
        first = graphs.backend(CAUSAL)
        tokens = first.run([TOKEN_EMBEDDINGS], feeds)[0]
        later = graphs.backend(LATER)
        assert graphs.backend(LATER) is later
        again = graphs.backend(CAUSAL)
        assert (again is not first) is opened_again
        assert np.array_equal(again.run([TOKEN_EMBEDDINGS], feeds)[0], tokens)
        assert not np.array_equal(graphs.backend(LATER).run([TOKEN_EMBEDDINGS], feeds)[0], tokens)

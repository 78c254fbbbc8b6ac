"""The order of a graph's outputs and its inputs, for programs that read them by position or feed them themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.decisions.flags import Flags
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from tiny import TEXTS, change_json, write_sentence_bert
from tiny_embedders import assert_vectors_equal
from tiny_heads import write_bge_m3, write_colbert_encoder, write_masked_lm
from tiny_rerankers import write_cross_encoder

ENDS: dict[str, tuple[Callable[..., Any], Options, list[str]]] = {
    "one": (write_sentence_bert, Options(), ["token_embeddings", "sentence_embedding"]),
    "out": (write_sentence_bert, Options(pooling_out=True), ["token_embeddings"]),
    "half": (write_sentence_bert, Options(precisions=("fp16",)), ["token_embeddings", "sentence_embedding"]),
    "all": (write_bge_m3, Options(), ["token_embeddings", "sentence_embedding", "sparse_weights", "multi_vector"]),
    "sparse": (write_masked_lm, Options(flags=Flags(task="sparse")), ["sparse_embedding", "token_embeddings"]),
    "colbert": (write_colbert_encoder, Options(), ["multi_vector", "token_embeddings"]),
    "pairs": (write_cross_encoder, Options(), ["logits"]),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_outputs_stand_in_the_order_that_readers_by_position_expect(tmp_path: Path, name: str) -> None:
    write, options, names = ENDS[name]
    write(tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", tmp_path / "out", options)
    graph = next((tmp_path / "out/onnx").glob("*.onnx"))
    assert [value.name for value in onnx.load(graph, load_external_data=False).graph.output] == names


def test_pooling_the_first_output_gives_the_second(tmp_path: Path) -> None:
    """As FastEmbed, Chroma and OpenSearch read graphs."""
    write_sentence_bert(tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", tmp_path / "out")
    with OnnxEmbedder(tmp_path / "out") as model:
        ids = model.tokenize(["the cat of that"])[0].ids[None]
        expected = model.encode(["the cat of that"])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    session = onnxruntime.InferenceSession(tmp_path / "out/onnx/model.onnx")
    outputs: list[Any] = session.run(None, feeds)
    pooled = outputs[0].mean(axis=1)
    assert_vectors_equal(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), expected)
    assert_vectors_equal(outputs[1], expected)


def test_a_multi_vector_graph_takes_no_segments_where_the_tokenizer_sets_none(tmp_path: Path) -> None:
    write_colbert_encoder(tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", tmp_path / "out")
    with OnnxEmbedder(tmp_path / "out") as model:
        assert model.manifest.model.inputs == ("input_ids", "attention_mask")
        ours = list(model.embed_multi_vector(TEXTS[:3], kind="document"))
    tokenizer = tmp_path / "checkpoint/tokenizer.json"
    change_json(tokenizer, post_processor=_with_segments(tokenizer))
    # BertTokenizer makes segments of its own; this class takes those of the file.
    change_json(tmp_path / "checkpoint/tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    export(tmp_path / "checkpoint", tmp_path / "segments")
    with OnnxEmbedder(tmp_path / "segments") as model:
        assert model.manifest.model.inputs == ("input_ids", "attention_mask", "token_type_ids")
        theirs = list(model.embed_multi_vector(TEXTS[:3], kind="document"))
    assert np.abs(ours[0] - theirs[0]).max() > 1e-3


def _with_segments(tokenizer: Path) -> Any:
    """A post-processor that puts single texts into segment 1."""
    import json

    processor = json.loads(tokenizer.read_text(encoding="utf-8"))["post_processor"]
    for piece in processor["single"]:
        for part in piece.values():
            part["type_id"] = 1
    return processor

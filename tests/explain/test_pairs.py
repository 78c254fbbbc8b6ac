"""Two causes at once that only meet in some texts, as sentence-transformers and transformers make them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.arrays import Array
from onnxembed.explain import Report, explain
from onnxembed.export.pipeline import export
from running import needs_torch
from tiny import WORDS, write_sentence_bert

PROMPT = "to be: "
# Several are cut to 20 tokens with the prompt; without it, the first of those is not the longest any more.
TEXTS = [" ".join((WORDS * 3)[:count]) for count in (1, 3, 6, 15, 16, 30, 45)]

pytestmark = [needs_torch, pytest.mark.torch]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs") / "checkpoint"
    return write_sentence_bert(folder, prompts={"query": PROMPT}, default_prompt_name="query")


@pytest.fixture(scope="module")
def prompted(checkpoint: Path) -> Iterator[OnnxEmbedder]:
    export(checkpoint, checkpoint.parent / "onnx")
    with OnnxEmbedder(checkpoint.parent / "onnx", threads=1) as opened:
        yield opened


def causes(report: Report) -> set[str]:
    assert report.explained, report.verdict
    return {cause.name for cause in report.causes}


def test_padding_that_is_pooled_beside_a_missing_prompt(checkpoint: Path, prompted: OnnxEmbedder) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=20, return_tensors="pt")
    with torch.no_grad():
        means = AutoModel.from_pretrained(checkpoint).eval()(**batch).last_hidden_state.mean(1)
    theirs: Array = torch.nn.functional.normalize(means, dim=-1).numpy()
    assert causes(explain(prompted, TEXTS, theirs)) == {"padding", "prompt"}


def test_a_prompt_that_is_not_pooled_beside_texts_that_are_cut_at_the_start(
    checkpoint: Path, prompted: OnnxEmbedder
) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(checkpoint), device="cpu")
    pooling: Any = model[1]
    pooling.include_prompt = False
    model.tokenizer.truncation_side = "left"
    theirs = np.asarray(model.encode(TEXTS, batch_size=1, show_progress_bar=False))
    assert causes(explain(prompted, TEXTS, theirs)) == {"prompt in the pooling", "truncation side"}

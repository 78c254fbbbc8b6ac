"""The real all-MiniLM-L6-v2 against numbers that others have published. Needs scripts/models/get_minilm.py's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.decisions.flags import Flags
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options

CHECKPOINT = Path(__file__).parents[1] / "models/all-MiniLM-L6-v2"

pytestmark = pytest.mark.skipif(
    not CHECKPOINT.is_dir(), reason="needs models/all-MiniLM-L6-v2, which scripts/models/get_minilm.py brings"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OnnxEmbedder:
    output = tmp_path_factory.mktemp("minilm") / "onnx"
    export(CHECKPOINT, output, Options(precisions=("fp32", "fp16")))
    return OnnxEmbedder(output)


def test_fastembeds_published_vector(model: OnnxEmbedder) -> None:
    """qdrant/fastembed, tests/test_text_onnx_embeddings.py; its tolerance is 1e-3."""
    vector = model.encode("hello world")
    np.testing.assert_allclose(vector[:5], [-0.034478, 0.03102, 0.00673, 0.02611, -0.039362], atol=1e-5)


def test_the_similarities_of_sentence_transformers_readme(model: OnnxEmbedder) -> None:
    """huggingface/sentence-transformers, README.md; four decimals."""
    vectors = model.encode(
        ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."],
    )
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(vectors @ vectors.T, published, atol=5e-5)


def test_teis_published_unnormalized_vectors(tmp_path: Path) -> None:
    """huggingface/text-embeddings-inference, backends/candle/tests/snapshots, mean and CLS pooling."""
    text = "What is Deep Learning?"
    published = {
        "mean": [-0.59059864, -0.25252345, 0.14972475, 0.05487579, -0.11783009, -0.16678402, -0.23309596, -0.07095148],
        "cls": [-0.02360367, -0.5268713, 0.17888242, -0.1465806, -0.00103445, 0.10533138, -0.12240729, 0.01991907],
    }
    for mode, values in published.items():
        flags = Flags(pooling=(mode,), normalize=False)  # type: ignore[arg-type]
        export(CHECKPOINT, tmp_path / mode, Options(flags=flags))
        with OnnxEmbedder(tmp_path / mode) as model:
            # TEI's float32 vectors are 6e-4 from torch's here: it computes GELU in the tanh form (its issue 753).
            np.testing.assert_allclose(model.encode(text)[:8], values, atol=1e-3)


def test_the_model_cuts_at_its_own_256_tokens_not_the_tokenizers_512(model: OnnxEmbedder) -> None:
    assert model.max_length == 256
    assert model.manifest.tokenization.max_length.reason == "sentence_bert_config.json: max_seq_length"


def test_fp16_points_the_same_way(model: OnnxEmbedder) -> None:
    texts = ["hello world", "a", "Rivers carry sediment to the sea. " * 20, "東京は日本の首都です。"]
    with OnnxEmbedder(model.folder, precision="fp16") as half:
        cosines = (half.encode(texts) * model.encode(texts)).sum(axis=1)
    assert cosines.min() >= 0.9999

"""The callable for batches, in the engines that call it, each with its real package."""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the extra [bulk]")

import pyarrow as pa

from onnxembed import OnnxEmbedder
from onnxembed.arrays import Array
from onnxembed.bulk.batches import EmbedBatch
from onnxembed.bulk.making import VectorOptions, vectors_of
from onnxembed.errors import MissingExtraError, UsageError
from tiny_embedders import texts_of_many_lengths

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]  # engines warn of their own affairs

TEXTS = texts_of_many_lengths(60)


@pytest.fixture(scope="module")
def expected(artifact: Path) -> Array:
    with OnnxEmbedder(artifact) as model:
        return model.encode(TEXTS)


@pytest.fixture
def embed(artifact: Path) -> EmbedBatch:
    return EmbedBatch(str(artifact), "body", threads=2)


def test_dictionaries_of_columns_and_arrow_tables(embed: EmbedBatch, expected: Array) -> None:
    made = embed({"n": np.arange(60), "body": np.array(TEXTS, object)})
    assert list(made) == ["n", "body", "vector", "token_count", "truncated"]
    assert (made["vector"].shape, made["vector"].dtype) == ((60, 32), np.float32)
    assert np.allclose(made["vector"], expected, atol=1e-6)
    table = embed(pa.table({"n": range(60), "body": TEXTS}))
    assert table.schema.names == ["n", "body", "vector", "token_count", "truncated"]
    assert np.allclose(vectors_of(table["vector"]), expected, atol=1e-6)


def test_what_the_texts_are_chooses_the_models_prompt(artifact: Path) -> None:
    batch = EmbedBatch(str(artifact), vectors=VectorOptions(kind="query"))({"text": ["the cat"]})
    own = EmbedBatch(str(artifact), vectors=VectorOptions(kind="query", prompt=""))({"text": ["the cat"]})
    with OnnxEmbedder(artifact) as model:
        np.testing.assert_allclose(batch["vector"][0], model.encode_query("the cat"), atol=1e-6)
        np.testing.assert_allclose(own["vector"][0], model.encode("the cat", prompt=""), atol=1e-6)


def test_sparse_embeddings_and_vectors_of_tokens(many_kinds: Path) -> None:
    sparse = EmbedBatch(str(many_kinds), vectors=VectorOptions("sparse"))({"text": ["the cat"]})
    tokens = EmbedBatch(str(many_kinds), vectors=VectorOptions("multi_vector"))({"text": ["the cat"]})
    with OnnxEmbedder(many_kinds) as model:
        own = model.encode_sparse("the cat")
        assert np.array_equal(sparse["indices"][0], own.indices)
        assert np.allclose(sparse["values"][0], own.values, atol=1e-6)
        assert np.allclose(np.stack(tokens["vectors"][0]), model.encode_multi_vector("the cat"), atol=1e-6)


def test_it_pickles_as_its_arguments_and_opens_the_model_once(
    embed: EmbedBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = embed({"body": ["the cat"]})
    copy = pickle.loads(pickle.dumps(embed))
    monkeypatch.setattr(OnnxEmbedder, "__init__", None)
    assert np.array_equal(copy({"body": ["the cat"]})["vector"], first["vector"])


def test_what_a_batch_cannot_be(embed: EmbedBatch, artifact: Path) -> None:
    with pytest.raises(UsageError, match="the batch has no column 'body'; it has: text"):
        embed({"text": ["a"]})
    with pytest.raises(UsageError, match=r"body\[1\] is NoneType, not str"):
        embed({"body": ["a", None]})
    with pytest.raises(UsageError, match="int8 vectors of batches need ranges"):
        EmbedBatch(str(artifact), vectors=VectorOptions(dtype="int8"))


def test_dask(embed: EmbedBatch, expected: Array) -> None:
    dataframes = pytest.importorskip("dask.dataframe", reason="needs dask[dataframe]")
    pandas = pytest.importorskip("pandas")
    frame = dataframes.from_pandas(pandas.DataFrame({"n": range(60), "body": TEXTS}), npartitions=3)
    meta = {"n": "i8", "body": "str", "vector": object, "token_count": "i4", "truncated": "bool"}
    made = frame.map_partitions(embed, meta=meta).compute(scheduler="threads")
    assert np.allclose(np.stack(made["vector"]), expected, atol=1e-6)


def test_the_provider_for_daft_names_the_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of it is tested in test_daft.py."""
    monkeypatch.delitem(sys.modules, "onnxembed.bulk.daft", raising=False)
    monkeypatch.setitem(sys.modules, "daft", None)
    with pytest.raises(MissingExtraError, match=r"OnnxEmbedProvider needs daft .*: pip install -U daft"):
        importlib.import_module("onnxembed.bulk.daft")


def test_datasets(embed: EmbedBatch, expected: Array) -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    made = datasets.Dataset.from_dict({"body": TEXTS}).map(embed, batched=True, batch_size=25)
    assert np.allclose(np.array(made["vector"], np.float32), expected, atol=1e-6)
    assert made.column_names == ["body", "vector", "token_count", "truncated"]


def test_spark(embed: EmbedBatch, expected: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import shutil

    spark_sql = pytest.importorskip("pyspark.sql", reason="needs pyspark")
    if shutil.which("java") is None:
        pytest.skip("needs Java: apt install openjdk-17-jre-headless")
    for name in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
        monkeypatch.setenv(name, sys.executable)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    builder: Any = spark_sql.SparkSession.builder
    session = builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        frame = session.createDataFrame(list(enumerate(TEXTS)), "n long, body string").repartition(3)
        schema = "n long, body string, vector array<float>, token_count int, truncated boolean"
        rows = sorted(frame.mapInPandas(embed, schema).collect(), key=lambda row: row.n)
    finally:
        session.stop()
    assert [row.body for row in rows] == TEXTS
    assert np.allclose(np.array([row.vector for row in rows], np.float32), expected, atol=1e-6)

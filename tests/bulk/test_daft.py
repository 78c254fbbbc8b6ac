"""The provider for Daft's embed_text, with the real package."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")  # else it tells its makers that it was imported
pytest.importorskip("pyarrow", reason="needs the extra [bulk]")
daft: Any = pytest.importorskip("daft", reason="needs daft")

from daft.functions import embed_text

from onnxembed import OnnxEmbedder
from onnxembed.bulk import batches
from onnxembed.bulk.daft import OnnxEmbedProvider
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.export.pipeline import export
from tiny_embedders import assert_vectors_equal, texts_of_many_lengths
from tiny_heads import write_masked_lm

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]  # Daft warns of its own affairs

TEXTS = texts_of_many_lengths(40)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that are opened in this process, none being open before."""
    folders: list[str] = []

    def open_model(folder: str, **options: Any) -> OnnxEmbedder:
        folders.append(folder)
        return OnnxEmbedder(folder, **options)

    monkeypatch.setattr(batches, "_MAKERS", {})
    monkeypatch.setattr(batches, "OnnxEmbedder", open_model)
    return folders


def embedded(texts: list[Any], model: str | None, provider: Any = None, **options: Any) -> Any:
    """A data frame with the texts and their vectors; nothing is embedded yet."""
    frame = daft.from_pydict({"body": texts})
    provider = provider or OnnxEmbedProvider(threads=2)
    return frame.with_column("vector", embed_text(frame["body"], provider=provider, model=model, **options))


def vectors(frame: Any) -> list[Any]:
    made: list[Any] = frame.to_pydict()["vector"]
    return made


def test_a_column_has_the_models_own_vectors_and_the_model_is_opened_once(artifact: Path, opened: list[str]) -> None:
    frame = embedded(TEXTS, str(artifact), batch_size=7)
    assert frame.schema()["vector"].dtype == daft.DataType.embedding(daft.DataType.float32(), 32)
    assert opened == []
    with OnnxEmbedder(artifact) as model:
        assert_vectors_equal(np.stack(vectors(frame)), model.encode(TEXTS))
    assert opened == [str(artifact)]


def test_a_row_without_a_text_has_no_vector_and_an_empty_text_has_one(artifact: Path) -> None:
    first, second, third, last = vectors(embedded([None, "the cat", "", None], str(artifact)))
    assert (first, last) == (None, None)
    with OnnxEmbedder(artifact) as model:
        assert_vectors_equal(np.stack([second, third]), model.encode(["the cat", ""]))
    assert vectors(embedded([None, None], str(artifact))) == [None, None]
    assert vectors(embedded([], str(artifact))) == []


def test_the_options_of_a_call_win_over_those_of_the_provider(artifact: Path) -> None:
    provider = OnnxEmbedProvider(threads=2, prompt_name="title", max_length=5)
    frame = embedded(TEXTS, str(artifact), provider, dimensions=8, prompt_name="query")
    assert frame.schema()["vector"].dtype.size == 8
    with OnnxEmbedder(artifact, max_length=5) as model:
        assert_vectors_equal(np.stack(vectors(frame)), model.encode(TEXTS, prompt_name="query", dimensions=8))
        kind = vectors(embedded(TEXTS, str(artifact), provider, prompt_name=None, kind="query"))
        assert_vectors_equal(np.stack(kind), model.encode_query(TEXTS))


def test_several_workers_of_a_process_share_the_model(artifact: Path, opened: list[str]) -> None:
    made = vectors(embedded(TEXTS, str(artifact), batch_size=10, concurrency=2))
    with OnnxEmbedder(artifact) as model:
        assert_vectors_equal(np.stack(made), model.encode(TEXTS))
    assert opened == [str(artifact)]


def test_another_process_in_another_folder_opens_the_same_model(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(artifact.parent)
    descriptor = OnnxEmbedProvider(threads=1).get_text_embedder(artifact.name)
    program = (
        "import sys, pickle\n"
        "embedder = pickle.load(sys.stdin.buffer).instantiate()\n"
        "sys.stdout.buffer.write(pickle.dumps(embedder.embed_text(['the cat', None])))"
    )
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, input=daft.pickle.dumps(descriptor), cwd=tmp_path, stdout=subprocess.PIPE, check=True)
    vector, nothing = pickle.loads(done.stdout)
    assert nothing is None
    with OnnxEmbedder(artifact) as model:
        assert_vectors_equal(vector, model.encode("the cat"))


def test_a_graph_from_elsewhere_has_the_width_of_its_own_output(artifact: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(artifact, tmp_path / "found", ignore=shutil.ignore_patterns("onnxembed.json", "proof.npz"))
    frame = embedded(TEXTS, str(folder))
    assert frame.schema()["vector"].dtype.size == 32
    with OnnxEmbedder(folder) as model:
        assert_vectors_equal(np.stack(vectors(frame)), model.encode(TEXTS))


def test_a_session_knows_the_provider_by_its_name(artifact: Path) -> None:
    with daft.session() as session:
        session.attach_provider(OnnxEmbedProvider(threads=2))
        (vector,) = vectors(embedded(["the cat"], str(artifact), "onnxembed"))
    with OnnxEmbedder(artifact) as model:
        assert_vectors_equal(vector, model.encode("the cat"))


def test_what_cannot_be_is_refused_before_anything_is_embedded(artifact: Path, tmp_path: Path) -> None:
    for dimensions in 0, 33, 2.5:
        with pytest.raises(
            UsageError, match=f"dimensions is {dimensions}, not a whole number from 1 to this model's 32"
        ):
            embedded(TEXTS, str(artifact), dimensions=dimensions)
    with pytest.raises(UsageError, match=r"^unknown options: dims, promt; there are: batch_size, .*, prompt_name, .*"):
        embedded(TEXTS, str(artifact), promt="", dims=8)
    with pytest.raises(UsageError, match="unknown options: batch_token_limit; there are: "):
        OnnxEmbedProvider(batch_token_limit=8)
    with pytest.raises(UsageError, match="embed_text needs a model"):
        embedded(TEXTS, None)
    with pytest.raises(ModelFilesError, match=r"onnxembed.json: it is not an onnxembed artifact"):
        embedded(TEXTS, str(tmp_path))
    write_masked_lm(tmp_path / "splade", pooling={"pooling_strategy": "max"})
    export(tmp_path / "splade", tmp_path / "splade-onnx")
    with pytest.raises(UsageError, match=r"this model is made for sparse .*, not for embedding"):
        embedded(TEXTS, str(tmp_path / "splade-onnx"))


def test_what_only_the_model_knows_is_refused_by_it(artifact: Path) -> None:
    with pytest.raises(UsageError, match="this model has no prompt named 'none'; it has: query, title"):
        vectors(embedded(TEXTS, str(artifact), prompt_name="none"))
    with pytest.raises(UsageError, match=r"text\[0\] is int, not str"):
        vectors(embedded([1, 2], str(artifact)))

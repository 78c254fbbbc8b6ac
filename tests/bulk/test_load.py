"""Loading into databases, each with its real package: nothing is lost or doubled, and searches find the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the extra [bulk]")

import pyarrow as pa
import pyarrow.parquet as pq

import databases
from databases import read
from jobs import Embed
from onnxembed import OnnxEmbedder
from onnxembed.bulk.load import load
from onnxembed.bulk.making import VectorOptions, vectors_of
from onnxembed.bulk.stores.postgres import binary_vectors
from onnxembed.bulk.stores.store import parse_target
from onnxembed.errors import UsageError
from postgres_server import NoServerError, postgres_server
from tiny_embedders import texts_of_many_lengths

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]  # clients warn of their own affairs

PACKAGES = {"lancedb": "lancedb", "qdrant": "qdrant_client", "postgres": "psycopg", "milvus": "milvus_lite"}
PACKAGES["chroma"] = "chromadb"


@pytest.fixture(scope="module", params=PACKAGES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of an empty store, to which the name of a collection is added."""
    pytest.importorskip(PACKAGES[request.param], reason=f"needs {PACKAGES[request.param]}")
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "postgres":
        with server() as uri:
            yield uri
    else:
        yield f"{request.param}:{folder}/{'db.db' if request.param == 'milvus' else 'db'}"


@contextmanager
def server() -> Iterator[str]:
    """The URI of a database of a PostgreSQL server that is started for it."""
    try:
        with postgres_server() as uri:
            yield uri
    except NoServerError as error:
        pytest.skip(str(error))


def at(store: str, name: str) -> str:
    """The URI of a collection."""
    base, mark, query = store.partition("?")
    return f"{base}/{name}{mark}{query}"


def silent(done: int, total: int) -> None:
    assert done <= total


def job(embed: Embed, place: Path, texts: list[str], **options: Any) -> Path:
    """A finished job of texts with ids and titles."""
    titles = [f"title {i}" for i in range(len(texts))]
    table = pa.table({"key": [f"doc-{i}" for i in range(len(texts))], "text": texts, "title": titles})
    pq.write_table(table, place / "in.parquet")
    embed("in.parquet", id_column="key", keep=("title",), part_rows=60, **options)
    return place / str(options.get("out", "out"))


def test_every_row_is_there_once_with_its_vector_and_columns(store: str, embed: Embed, tmp_path: Path) -> None:
    out = job(embed, tmp_path, texts_of_many_lengths(150))
    uri = at(store, "docs")
    loaded = load(out, uri, silent, batch=50)
    assert (loaded.rows, loaded.written, loaded.count) == (150, 150, 150)
    found = read(uri, "docs")
    table = pq.read_table(out)
    assert found.keys() == {*table["id"].to_pylist()}
    columns = (table["id"].to_pylist(), table["title"].to_pylist(), vectors_of(table["vector"]))
    for id, title, vector in zip(*columns, strict=True):
        stored, payload = found[id]
        assert np.allclose(stored, vector, atol=1e-6)
        assert payload == {"title": title}


def test_loading_again_changes_nothing_and_goes_on_where_it_stopped(store: str, embed: Embed, tmp_path: Path) -> None:
    out = job(embed, tmp_path, texts_of_many_lengths(150))
    uri = at(store, "again")

    def stop(done: int, total: int) -> None:
        if done > 90:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(out, uri, stop, batch=30)
    loaded = load(out, uri, silent)
    assert (loaded.written, loaded.count) == (90, 150)
    assert load(out, uri, silent).written == 0
    for record in (out / "_job").glob("loaded-*.json"):
        record.unlink()
    loaded = load(out, uri, silent)
    assert (loaded.written, loaded.count) == (150, 150)
    assert len(read(uri, "again")) == 150


def test_qdrant_gets_ids_that_its_servers_take(embed: Embed, tmp_path: Path) -> None:
    qdrant = pytest.importorskip("qdrant_client")
    (tmp_path / "a.jsonl").write_text('{"n": 7, "text": "the cat"}\n{"n": -1, "text": "it was"}\n')
    embed("a.jsonl", id_column="n")
    load(tmp_path / "out", f"qdrant:{tmp_path}/q/docs", silent)
    client = qdrant.QdrantClient(path=f"{tmp_path}/q")
    points, _ = client.scroll("docs")
    client.close()
    assert {point.payload["id"]: type(point.id) for point in points} == {7: int, -1: str}


def compared_by(out: Path, similarity: str) -> None:
    """Have a job say that its model compares vectors so."""
    said = json.loads((out / "_job/job.json").read_text())
    said["vectors"]["similarity"] = similarity
    (out / "_job/job.json").write_text(json.dumps(said))


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_collections_compare_as_the_model_does(store: str, embed: Embed, tmp_path: Path, similarity: str) -> None:
    out = job(embed, tmp_path, ["the cat", "it was"])
    assert json.loads((out / "_job/job.json").read_text())["vectors"]["similarity"] == "cosine"
    compared_by(out, similarity)
    uri = at(store, similarity)
    load(out, uri, silent)
    assert databases.similarity(uri, similarity) == similarity
    compared_by(out, "dot" if similarity == "cosine" else "cosine")
    with pytest.raises(UsageError, match=rf"similarity: {similarity} and (dot|cosine)"):
        load(out, uri, silent)


def test_chroma_searches_among_more_candidates_than_it_does_by_itself(embed: Embed, tmp_path: Path) -> None:
    """It has no exact search, and keeps the number that a collection is made with."""
    pytest.importorskip("chromadb")
    load(job(embed, tmp_path, ["the cat"]), f"chroma:{tmp_path}/db/docs", silent)
    assert databases.chroma_collection(f"{tmp_path}/db", "docs").configuration["hnsw"]["ef_search"] == 400


def test_a_collection_that_was_thrown_away_is_loaded_anew(embed: Embed, tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    out = job(embed, tmp_path, texts_of_many_lengths(150))
    for _ in range(2):
        loaded = load(out, f"lancedb:{tmp_path}/db/docs", silent)
        assert (loaded.written, loaded.count) == (150, 150)
        shutil.rmtree(tmp_path / "db")


def test_a_collection_that_another_job_filled_since_is_loaded_anew(embed: Embed, tmp_path: Path) -> None:
    """It has the same name and is not empty, but it is not the one that is remembered."""
    lancedb = pytest.importorskip("lancedb")
    out = job(embed, tmp_path, texts_of_many_lengths(150))
    other = job(embed, tmp_path, ["the cat"], out="other")
    load(out, f"lancedb:{tmp_path}/db/docs", silent)
    lancedb.connect(tmp_path / "db").drop_table("docs")
    load(other, f"lancedb:{tmp_path}/db/docs", silent)
    loaded = load(out, f"lancedb:{tmp_path}/db/docs", silent)
    assert (loaded.written, loaded.count) == (150, 150)
    assert load(out, f"lancedb:{tmp_path}/db/docs", silent).written == 0


def test_a_later_row_replaces_the_one_that_has_its_id(store: str, embed: Embed, tmp_path: Path) -> None:
    uri = at(store, "replaced")
    load(job(embed, tmp_path, ["the cat", "it was"]), uri, silent)
    second = job(embed, tmp_path, ["a dog", "it was"], out="second")
    assert load(second, uri, silent).count == 2
    vectors = vectors_of(pq.read_table(second)["vector"])
    assert np.allclose(read(uri, "replaced")["doc-0"][0], vectors[0], atol=1e-6)


def test_of_rows_with_one_id_the_last_one_stays(store: str, embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"key": "a", "text": "the {i}", "title": "{i}"}}\n' for i in range(5)))
    embed("a.jsonl", id_column="key", keep=("title",), part_rows=3)
    loaded = load(tmp_path / "out", at(store, "twice"), silent)
    assert (loaded.rows, loaded.count) == (5, 1)
    assert read(at(store, "twice"), "twice")["a"][1] == {"title": "4"}


def test_a_collection_of_another_space_is_refused(store: str, embed: Embed, many_kinds: Path, tmp_path: Path) -> None:
    uri = at(store, "spaces")
    load(job(embed, tmp_path, ["the cat"]), uri, silent)
    other = job(embed, tmp_path, ["the cat"], out="other", folder=many_kinds)
    with pytest.raises(UsageError, match=r"spaces holds vectors of another space \(.*pooling: mean and cls"):
        load(other, uri, silent)
    short = job(embed, tmp_path, ["the cat"], out="short", vectors=VectorOptions(dimensions=8))
    with pytest.raises(UsageError, match="dimensions: 32 and 8"):
        load(short, uri, silent)
    assert len(read(uri, "spaces")) == 1


def test_numbers_are_ids_too_and_halves_become_whole_floats(store: str, embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"n": 7, "text": "the cat", "title": "a"}\n{"n": -1, "text": "it was"}\n')
    embed("a.jsonl", id_column="n", keep=("title",), vectors=VectorOptions(dtype="float16"))
    assert load(tmp_path / "out", at(store, "numbers"), silent).count == 2
    assert {int(id) for id in read(at(store, "numbers"), "numbers")} == {7, -1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vectors": VectorOptions(dtype="ubinary")}, "holds ubinary vectors; a store takes dense vectors"),
        ({"vectors": VectorOptions("sparse")}, "holds sparse; a store takes dense vectors"),
    ],
)
def test_what_no_store_takes_is_refused(
    embed: Embed, many_kinds: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    out = job(embed, tmp_path, ["the cat"], folder=many_kinds, **options)
    with pytest.raises(UsageError, match=words):
        load(out, f"lancedb:{tmp_path}/db/docs", silent)


def test_targets_and_jobs_that_cannot_be_are_refused(embed: Embed, tmp_path: Path) -> None:
    out = job(embed, tmp_path, ["the cat"])
    for uri, words in (
        ("redis://localhost/docs", "names no known store; known are lancedb, qdrant"),
        ("docs", "names no collection"),
        ("qdrant://localhost:6333", "names no collection"),
    ):
        with pytest.raises(UsageError) as error:
            load(out, uri, silent)
        assert words in str(error.value)
    with pytest.raises(UsageError, match="has no job of onnxembed embed"):
        load(tmp_path, "lancedb:db/docs", silent)
    (out / "part-00000.parquet").rename(tmp_path / "lost.parquet")
    with pytest.raises(UsageError, match="has 0 of the 1 parts of its job: run its command again"):
        load(out, "lancedb:db/docs", silent)
    (out / "_job/summary.json").unlink()
    with pytest.raises(UsageError, match="is not finished: run its command again"):
        load(out, "lancedb:db/docs", silent)


def test_a_server_that_does_not_answer_is_named(embed: Embed, tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="needs psycopg")
    with pytest.raises(UsageError, match="postgres://me@localhost:1/db/docs: "):
        load(job(embed, tmp_path, ["the cat"]), "postgres://me@localhost:1/db/docs", silent)


def test_what_a_store_refuses_is_told_in_its_words(embed: Embed, tmp_path: Path) -> None:
    """Closing the store fails then, too, which nobody wants to read."""
    pytest.importorskip("lancedb")
    with pytest.raises(UsageError, match=r"docs!: .*name"):
        load(job(embed, tmp_path, ["the cat"]), f"lancedb:{tmp_path}/db/docs!", silent)


def test_postgres_has_columns_of_their_own_types(embed: Embed, tmp_path: Path) -> None:
    psycopg = pytest.importorskip("psycopg", reason="needs psycopg")
    here, there = datetime(2020, 1, 2, 3, 4, 5), datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    kept: dict[str, Any] = {
        "tags": [["x", "y"], None],
        "facts": [{"k": "v"}, {"k": None}],
        "days": [[date(2020, 1, 2)], []],
        "here": [here, None],
        "there": pa.array([there, None], pa.timestamp("us", "UTC")),
        "yes": [True, False],
    }
    pq.write_table(pa.table({"key": [1, 2], "text": ["a", "b"], **kept}), tmp_path / "in.parquet")
    embed("in.parquet", id_column="key", keep=tuple(kept))
    with server() as store:
        load(tmp_path / "out", at(store, "docs"), silent)
        with psycopg.connect(databases.address(store)) as connection:
            rows = connection.execute(f"SELECT {', '.join(kept)} FROM docs ORDER BY id").fetchall()
    assert rows == [
        (["x", "y"], {"k": "v"}, ["2020-01-02"], here, there, True),
        (None, {"k": None}, [], None, None, False),
    ]


def test_targets_are_read_in_their_parts() -> None:
    for uri, host, path, name in (
        ("lancedb:db/docs", "", "db", "docs"),
        ("lancedb:///a/db/docs", "", "/a/db", "docs"),
        ("qdrant://localhost:6333/docs", "localhost:6333", "", "docs"),
        ("postgres://me@host/db/docs?sslmode=off", "me@host", "/db", "docs"),
    ):
        target = parse_target(uri)
        assert (target.host, target.path, target.name) == (host, path, name)
        assert target.shown == uri
    assert parse_target("postgres://me:secret@host/db/docs").shown == "postgres://me@host/db/docs"


def test_the_bytes_of_a_vector_are_those_that_pgvector_reads() -> None:
    rows = binary_vectors(np.array([[1.0, -2.0]], np.float32))
    assert rows.tobytes() == b"\x00\x02\x00\x00\x3f\x80\x00\x00\xc0\x00\x00\x00"


def test_an_unopened_model_is_not_needed(embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lancedb")
    out = job(embed, tmp_path, ["the cat"])
    monkeypatch.setattr(OnnxEmbedder, "__init__", None)
    assert load(out, f"lancedb:{tmp_path}/db/docs", silent).count == 1

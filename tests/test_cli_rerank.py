"""`onnxembed rerank`, and what export and inspect say of a reranker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from onnxembed import OnnxReranker
from onnxembed.cli import cli
from onnxembed.errors import OnnxEmbedError
from onnxembed.export.pipeline import export
from tiny_rerankers import DOCUMENTS, QUERY, write_reranker


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_reranker(tmp_path_factory.mktemp("reranker") / "checkpoint")
    export(folder, folder.parent / "artifact")
    return folder.parent / "artifact"


def run(*arguments: str | Path, input: bytes | None = None) -> Result:
    result = CliRunner().invoke(cli, list(map(str, arguments)), input=input)
    if isinstance(result.exception, OnnxEmbedError):
        raise result.exception
    return result


def test_rerank_prints_the_best_first(artifact: Path) -> None:
    result = run("rerank", artifact, "--query", QUERY, *DOCUMENTS)
    assert result.exit_code == 0, result.output
    with OnnxReranker(artifact) as model:
        ranked = model.rank(QUERY, DOCUMENTS)
    lines = result.stdout.splitlines()
    assert [int(line.split()[1]) for line in lines] == [each.index for each in ranked]
    assert [float(line.split()[0]) for line in lines] == [round(each.score, 4) for each in ranked]
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("way", ["txt", "jsonl", "stdin", "stdin-jsonl"])
def test_documents_come_from_files_and_standard_input(artifact: Path, way: str, tmp_path: Path) -> None:
    lines = [json.dumps({"body": text}) if "jsonl" in way else text for text in DOCUMENTS]
    content = "".join(f"{line}\n" for line in lines).encode()
    file = tmp_path / f"documents.{way}"
    if not way.startswith("stdin"):
        file.write_bytes(content)
    source = ["-", *["--jsonl"] * ("jsonl" in way)] if way.startswith("stdin") else [str(file)]
    options = ["--output", "json", "--raw-scores", "--top-k", "3", "--field", "body"]
    result = run("rerank", artifact, "--query", QUERY, *source, *options, input=content)
    assert result.exit_code == 0, result.output
    with OnnxReranker(artifact) as model:
        ranked = model.rank(QUERY, DOCUMENTS, top_k=3, return_documents=True, raw_scores=True)
    assert [json.loads(line) for line in result.stdout.splitlines()] == [vars(each) for each in ranked]


def test_rerank_needs_a_query_and_documents(artifact: Path) -> None:
    assert "Missing option '--query'" in run("rerank", artifact, "a").output
    with pytest.raises(OnnxEmbedError, match=r"no texts"):
        run("rerank", artifact, "--query", "a")


def test_truncation_and_length_are_passed_on(artifact: Path) -> None:
    long = " ".join(["of"] * 12)
    options = ("--max-length", "13", "--truncation", "only_second")
    with pytest.raises(OnnxEmbedError, match=r"must fit into 10"):
        run("rerank", artifact, "--query", long, *options, long)


def test_export_and_inspect_say_what_it_is(tmp_path: Path) -> None:
    folder = write_reranker(tmp_path / "checkpoint", labels=2)
    exported = run("export", folder, "-o", tmp_path / "out", "--no-verify", "--activation", "sigmoid")
    assert exported.exit_code == 0, exported.output
    assert "out: 2 scores, " in exported.stdout
    assert "run on 33 pairs: scores are finite, and the same for a pair alone and among others" in exported.stdout
    said = run("inspect", tmp_path / "out").stdout
    for words in (
        "tasks            reranking",
        "labels           LABEL_0, LABEL_1 (file: config.json: id2label)",
        "head reads       cls (architecture: the head of bert reads the first token)",
        "score            sigmoid of the logit (flag: --activation)",
        "long pairs       longest_first (architecture: ",
    ):
        assert words in said


def test_embed_says_what_the_model_is_made_for(artifact: Path) -> None:
    with pytest.raises(OnnxEmbedError, match=r"made for reranking"):
        run("embed", artifact, "a text")

"""`onnxembed rerank`, and what export and inspect print about a reranker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnxembed import OnnxReranker
from onnxembed.export.pipeline import export
from onnxembed.proof.probes import BRIEF_PAIRS
from running import Run, refused
from tiny_rerankers import DOCUMENTS, QUERY, write_reranker


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_reranker(tmp_path_factory.mktemp("reranker") / "checkpoint")
    export(folder, folder.parent / "artifact")
    return folder.parent / "artifact"


def test_rerank_prints_the_best_first(run: Run, artifact: Path) -> None:
    result = run("rerank", artifact, "--query", QUERY, *DOCUMENTS)
    assert result.code == 0, result.err
    with OnnxReranker(artifact) as model:
        ranked = model.rank(QUERY, DOCUMENTS)
    lines = result.out.splitlines()
    assert [int(line.split()[1]) for line in lines] == [result.index for result in ranked]
    assert [float(line.split()[0]) for line in lines] == [round(result.score, 4) for result in ranked]
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("way", ["txt", "jsonl", "stdin", "stdin-jsonl"])
def test_documents_come_from_files_and_standard_input(run: Run, artifact: Path, way: str, tmp_path: Path) -> None:
    jsonl = "jsonl" in way
    lines = [json.dumps({"body": text}) if jsonl else text for text in DOCUMENTS]
    content = "".join(f"{line}\n" for line in lines).encode()
    file = tmp_path / f"documents.{way}"
    if way.startswith("stdin"):
        source = ["-", "--jsonl"] if jsonl else ["-"]
    else:
        file.write_bytes(content)
        source = [str(file)]
    options = ["--format", "json", "--raw-scores", "--top-k", "3"]
    if jsonl:
        options += ["--field", "body"]
    result = run("rerank", artifact, "--query", QUERY, *source, *options, stdin=content)
    assert result.code == 0, result.err
    with OnnxReranker(artifact) as model:
        ranked = model.rank(QUERY, DOCUMENTS, top_k=3, return_documents=True, raw_scores=True)
    assert [json.loads(line) for line in result.out.splitlines()] == [vars(document) for document in ranked]


def test_the_former_name_of_the_format_option_still_works(run: Run, artifact: Path) -> None:
    options = ("--query", QUERY, DOCUMENTS[0])
    assert run("rerank", artifact, *options, "--output", "json") == run(
        "rerank", artifact, *options, "--format", "json"
    )
    assert "--output" not in run("rerank", "--help").out


def test_rerank_needs_a_query_and_documents(run: Run, artifact: Path) -> None:
    assert "Missing option '--query'" in run("rerank", artifact, "a").err
    assert refused(run("rerank", artifact, "--query", "a"), "no texts")


def test_rerank_says_how_a_file_of_another_name_is_read(run: Run, artifact: Path) -> None:
    Path("documents.csv").write_text("a\nthe cat\n")
    assert refused(run("rerank", artifact, "--query", "a", "documents.csv"), "read it as standard input: - <")
    code, out, _ = run("rerank", artifact, "--query", "a", "-", stdin=Path("documents.csv").read_bytes())
    assert (code, len(out.splitlines())) == (0, 2)


def test_truncation_and_length_are_passed_on(run: Run, artifact: Path) -> None:
    long = " ".join(["of"] * 12)
    options = ("--max-length", "13", "--truncation", "only_second")
    assert refused(run("rerank", artifact, "--query", long, *options, long), "must fit into 10")


def test_export_and_inspect_describe_a_reranker(run: Run, tmp_path: Path) -> None:
    folder = write_reranker(tmp_path / "checkpoint", labels=2)
    exported = run("export", folder, "-o", tmp_path / "out", "--no-verify", "--activation", "sigmoid")
    assert exported.code == 0, exported.err
    assert "out: 2 scores, " in exported.out
    assert (
        f"run on {len(BRIEF_PAIRS)} pairs: scores are finite, and the same for a pair alone and among others"
        in exported.out
    )
    inspected = run("inspect", tmp_path / "out").out
    for words in (
        "tasks            reranking",
        "labels           LABEL_0, LABEL_1 (file: config.json: id2label)",
        "head reads       cls (architecture: the head of bert reads the first token)",
        "score            sigmoid of the logit (flag: --activation)",
        "long pairs       longest_first (architecture: ",
    ):
        assert words in inspected


def test_embed_refuses_a_reranker(run: Run, artifact: Path) -> None:
    assert refused(run("embed", artifact, "a text"), "made for reranking")

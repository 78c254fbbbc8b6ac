"""`onnxembed embed` with a folder as its output: a job on the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the extra [bulk]")

import pyarrow as pa
import pyarrow.parquet as pq

from onnxembed import OnnxEmbedder
from onnxembed.bulk.making import vectors_of
from onnxembed.bulk.report import _rates, _reasons
from onnxembed.bulk.summary import Summary
from onnxembed.cli.job import Progress, duration
from running import Run, names, refused


def test_a_folder_gets_parquet_files_and_a_line_says_what_came_of_it(
    run: Run, artifact: Path, model: OnnxEmbedder
) -> None:
    Path("a.jsonl").write_text('{"n": 7, "body": "the cat"}\n{"n": 8, "body": null}\n{"n": 9, "body": "it was"}\n')
    arguments = ["--column", "body", "--id-column", "n", "--keep", "body", "--prompt-name", "query"]
    code, out, err = run("embed", artifact, "a.jsonl", "-o", "out/", *arguments)
    assert (code, err) == (0, "")
    assert re.fullmatch(
        r"out: 2 texts, \d+ tokens, 0 truncated, 1 rejected \(out/_job/rejected\.parquet\), 1 part, "
        r"space [0-9a-f]{12}, [\d,]+ texts/s\n",
        out,
    )
    table = pq.read_table("out")
    assert table["id"].to_pylist() == [7, 9]
    assert table["body"].to_pylist() == ["the cat", "it was"]
    expected = model.encode(["the cat", "it was"], prompt_name="query")
    assert np.allclose(vectors_of(table["vector"]), expected, atol=1e-6)
    again = run("embed", artifact, "a.jsonl", "-o", "out", *arguments)  # the folder is there: it needs no slash
    assert (again.code, again.err) == (0, "")
    assert "2 texts were there already" in again.out


def test_options_of_a_job_need_a_folder(run: Run, artifact: Path) -> None:
    Path("a.txt").write_text("the cat\n")
    for option in (["--keep", "a"], ["--id-column", "a"], ["--strict"], ["--part-rows", "9"]):
        outcome = run("embed", artifact, "a.txt", "-o", "v.npy", *option)
        assert refused(outcome, option[0], "give one as the output, -o OUT/")
    assert names(Path()) == ["a.txt"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "out/"], ("a job reads its input again to go on",)),
        (["-", "-o", "out/"], ("a job reads its input again to go on",)),
        (["a.txt", "--jsonl", "-o", "out/"], ("--jsonl and a folder do not go together",)),
        (["--text", "a", "-o", "out/"], ("--text and a folder do not go together",)),
        (["a text", "-o", "out/"], ("a text: No such file",)),
        (["a.txt", "-o", "out/", "--part-rows", "0"], ("part_rows is 0, not a positive whole number",)),
        (["a.txt", "-o", "out/", "--keep", "b"], ("a.txt has lines of text and no columns: no 'b'",)),
        (["a.txt", "-o", "out/", "--dimensions", "99"], ("dimensions is 99",)),
        (["a.txt", "-o", "out/", "--prompt-name", "no"], ("no prompt named 'no'; it has: query, title",)),
        (["a.txt", "-o", "out/", "--sparse"], ("made for embedding",)),
        (["a.txt", "-o", "out.parquet"], (".npy or .jsonl", "to a folder, -o out.parquet/")),
    ],
)
def test_what_a_job_cannot_do_is_refused_and_nothing_is_written(
    run: Run, artifact: Path, arguments: list[str], words: tuple[str, ...]
) -> None:
    Path("a.txt").write_text("the cat\n")
    assert refused(run("embed", artifact, *arguments), *words)
    assert names(Path()) == ["a.txt"]


def test_another_job_is_replaced_when_forced(run: Run, artifact: Path) -> None:
    Path("a.txt").write_text("the cat\n")
    assert run("embed", artifact, "a.txt", "-o", "out/").code == 0
    assert refused(
        run("embed", artifact, "a.txt", "-o", "out/", "--dimensions", "8"), "dimensions: 32 and 8", "--force"
    )
    assert run("embed", artifact, "a.txt", "-o", "out/", "--dimensions", "8", "--force").code == 0
    assert json.loads(Path("out/_job/job.json").read_text())["vectors"]["dimensions"] == 8


def test_a_report_shows_the_counts_and_plots(run: Run, artifact: Path) -> None:
    rows = [{"text": "the cat " * (i % 9)} for i in range(200)] + [{"text": None}, {"text": 5}, {"text": "<b>"}]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("embed", artifact, "a.jsonl", "-o", "out/", "--report", "r.html").code == 0
    page = Path("r.html").read_text()
    assert "Nothing was embedded" not in page
    tree = ElementTree.fromstring(
        page.replace("<!DOCTYPE html>", "")
        .replace('<meta charset="utf-8">', "")
        .replace('"onnxembed">', '"onnxembed"/>')
    )
    bars = tree.findall(".//svg")[0].findall("rect")
    counts = np.bincount(pq.read_table("out")["token_count"].to_numpy())
    titles = [f"{tokens} to {tokens} tokens: {count} text" for tokens, count in enumerate(counts)]
    assert [str(bar.findtext("title")).removesuffix("s") for bar in bars] == titles
    heights = np.array([float(bar.attrib["height"]) for bar in bars])
    assert np.allclose(heights / heights.max(), counts / counts.max(), atol=1e-3)
    reasons = {row[0].text: (row[1].text, row[2][0].attrib["style"]) for row in tree.findall(".//table")[1]}
    assert reasons == {"null": ("1", "width:100.0%"), "int, not a text": ("1", "width:100.0%")}
    assert "Every row is in out/_job/rejected.parquet." in page
    assert "http" not in page
    assert run("embed", artifact, "a.jsonl", "-o", "out/", "--report", "r.html").code == 0
    assert "Nothing was embedded in this run" in Path("r.html").read_text()
    Path("mine.html").write_text("mine")
    for taken in ("mine.html", "out"):
        outcome = run("embed", artifact, "a.jsonl", "-o", "out/", "--report", taken, "--force")
        assert refused(outcome, f"{taken} exists and is no report")


def test_a_report_says_which_reasons_it_leaves_out(run: Run) -> None:
    Path("out/_job").mkdir(parents=True)
    reasons = ["null"] * 5 + ["<b>"] * 3 + ["not a text", "not JSON", "not JSON"]
    pq.write_table(pa.table({"reason": reasons}), "out/_job/rejected.parquet")
    rows = ElementTree.fromstring(f"<div>{_reasons(Path('out'), most=2)}</div>")
    assert [(row[0].text, row[1].text) for row in rows[0]] == [("null", "5"), ("<b>", "3")]
    assert rows[1].text == "3 rows of 2 other reasons. Every row is in out/_job/rejected.parquet."


def test_a_report_draws_the_rates_of_a_few_windows_together() -> None:
    pairs = [(0.0, 0), (1.9, 100), (2.0, 200), (3.9, 300), (4.0, 400), (7.9, 500), (8.0, 600), (11.9, 700), (12.0, 800)]
    plot = ElementTree.fromstring(_rates(pairs))
    line = plot.find("polyline")
    assert line is not None
    assert line.attrib["points"] == "0.0,30.0 213.3,30.0 213.3,110.0 640.0,110.0"  # 100, then 50 texts a second
    many = ElementTree.fromstring(_rates([(float(second), 10 * second) for second in range(1001)]))
    thinned = many.find("polyline")
    assert thinned is not None
    assert len(thinned.attrib["points"].split()) <= 2 * 121


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr("onnxembed.cli.job.time.monotonic", lambda: now.seconds)
    return now


def test_a_log_gets_a_line_a_minute(capsys: pytest.CaptureFixture[str], clock: SimpleNamespace) -> None:
    with Progress() as progress:
        progress.begin(0.5, Summary(1000, 1000, 9000, 0, 0, 1))
        for _ in range(70):
            clock.seconds += 1
            progress.advance(10, 0.5 + (clock.seconds - 100) / 700)
        words = progress.describe(Summary(1700, 1700, 15300, 2, 0, 2), "abc", Path("out"))
    assert capsys.readouterr().err == "embedding: 58.6% done, 1,600 texts, 10 texts/s, 4 min 50 s left\n"
    assert words == (
        "1,700 texts, 15,300 tokens, 2 truncated, 0 rejected, 2 parts, space abc, 1,000 texts were there already, "
        "10 texts/s"
    )


def test_times_are_said_in_two_units() -> None:
    assert [duration(seconds) for seconds in (0, 59.6, 3661, 90061)] == ["0 s", "1 min 0 s", "1 h 1 min", "1 d 1 h"]


def test_samples_are_a_quarter_of_a_second_apart_and_the_last_is_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with Progress() as progress:
        progress.begin(0.0, Summary(0, 0, 0, 0, 0, 0))
        for step in range(1, 8):
            now = 100 + step / 8
            progress.advance(10, step / 8)
    assert progress.samples == [(0.0, 0), (0.25, 20), (0.5, 40), (0.75, 60), (0.875, 70)]

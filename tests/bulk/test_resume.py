"""Jobs that are stopped, run again, or changed: the parts are the same however often a job was stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the extra [bulk]")

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import Embed, Silent, StopError, Stopping, content, write
from onnxembed.bulk.chunks import Position, pending
from onnxembed.bulk.inputs import find_inputs, open_inputs
from onnxembed.bulk.job import locked
from onnxembed.bulk.making import VectorOptions
from onnxembed.bulk.rows import Columns
from onnxembed.errors import UsageError
from tiny_embedders import texts_of_many_lengths

TEXTS = ["the cat", "", "Straße 東京", "it was " * 30, "the cat", 'a "quoted", text']


def mixed_inputs(folder: Path) -> list[str]:
    """Inputs of all formats, with rows that are rejected."""
    texts = texts_of_many_lengths(200)
    write(folder / "a.txt", texts[:70])
    write(folder / "b.parquet", texts[70:100])
    (folder / "c.jsonl").write_text(
        "".join(f"{json.dumps({'text': text})}\n\n" for text in texts[100:150]) + '{"text": 5}\n\n{"no": "text"}\n[\n'
    )
    pq.write_table(pa.table({"text": [None, "the", None, "cat"] * 10}), folder / "d.parquet", row_group_size=7)
    write(folder / "e.csv.gz", texts[150:])
    return ["a.txt", "b.parquet", "c.jsonl", "d.parquet", "e.csv.gz"]


def test_a_job_that_was_stopped_anywhere_ends_with_the_same_bytes(embed: Embed, tmp_path: Path) -> None:
    inputs = mixed_inputs(tmp_path)
    embed(*inputs, out="whole", part_rows=16)
    expected = content(tmp_path / "whole")
    assert {"_job/rejected.parquet", "_job/summary.json", "part-00014.parquet"} <= expected.keys()
    stops = 0
    for after in (0, 1, 2, 0, 3, 1, 4, 100):
        try:
            embed(*inputs, part_rows=16, watch=Stopping(after))
        except StopError:
            stops += 1
            assert not [path for path in (tmp_path / "out").rglob("*") if ".part" in path.suffix]
    assert stops == 7
    assert content(tmp_path / "out") == expected


def test_a_lost_or_damaged_part_is_made_again(embed: Embed, tmp_path: Path) -> None:
    inputs = mixed_inputs(tmp_path)
    embed(*inputs, part_rows=16)
    expected = content(tmp_path / "out")
    (tmp_path / "out/part-00007.parquet").unlink()
    (tmp_path / "out/part-00011.parquet").write_bytes(b"PAR1 no more")
    with pytest.warns(UserWarning, match=r"part-00011.*embedded again"):
        embed(*inputs, part_rows=16)
    assert content(tmp_path / "out") == expected


@pytest.mark.parametrize("name", ["a.txt", "a.parquet", "a.jsonl", "a.csv.gz"])
def test_a_part_ends_with_the_row_that_fills_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where texts are long, parts have fewer rows, which bounds memory."""
    monkeypatch.setattr("onnxembed.bulk.chunks.PART_CHARACTERS", 10)
    write(tmp_path / name, ["aaaa", "bbbb", "cc", "d" * 12, "e", "f", "g" * 9])
    inputs = open_inputs(
        find_inputs([str(tmp_path / name)], lambda stage, done, total: None), Columns("text", None, ())
    )
    texts = [["aaaa", "bbbb", "cc"], ["d" * 12], ["e", "f", "g" * 9]]
    assert [chunk.texts for chunk in pending(inputs, {}, 16)] == texts
    assert [len(chunk.texts) for chunk in pending(inputs, {}, 2)] == [2, 2, 2, 1]


@pytest.mark.parametrize("name", ["a.txt", "a.parquet", "a.jsonl"])
def test_the_share_that_is_done_grows_with_the_rows(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, ["the cat"] * 10_000)
    (tmp_path / "empty.txt").touch()
    files = find_inputs([str(tmp_path / name), str(tmp_path / "empty.txt")], lambda stage, done, total: None)
    inputs = open_inputs(files, Columns("text", None, ()))
    whole = list(pending(inputs, {}, 1000))
    assert np.allclose([chunk.share for chunk in whole], np.arange(1, 11) / 10, atol=0.01)
    done = {chunk.number: (chunk.start, chunk.end) for chunk in whole[:4]}
    for chunks, first in ((whole, 0), (list(pending(inputs, done, 1000)), 4)):
        assert np.allclose([chunk.begun for chunk in chunks], np.arange(first, 10) / 10, atol=0.01)


def test_the_share_of_a_compressed_file_is_that_of_its_own_bytes(tmp_path: Path) -> None:
    """Its lines are ten times as long as what is read of it."""
    letters = np.random.default_rng(3).integers(97, 123, (10_000, 100), np.uint8)
    write(tmp_path / "a.txt.gz", [10 * line.tobytes().decode() for line in letters])
    files = find_inputs([str(tmp_path / "a.txt.gz")], lambda stage, done, total: None)
    shares = [chunk.share for chunk in pending(open_inputs(files, Columns("text", None, ())), {}, 1000)]
    assert np.allclose(shares, np.arange(1, 11) / 10, atol=0.2)


def test_a_job_that_goes_on_tells_which_share_was_done_before(embed: Embed, tmp_path: Path) -> None:
    """Otherwise the time that is left would be that of a much faster job."""
    write(tmp_path / "a.txt", ["the cat"] * 1000)
    embed("a.txt", part_rows=200)
    for lost in (3, 4):
        (tmp_path / f"out/part-0000{lost}.parquet").unlink()
    watch = Silent()
    embed("a.txt", part_rows=200, watch=watch)
    assert np.allclose(watch.shares, [0.6, 0.8, 1.0], atol=0.01)
    embed("a.txt", part_rows=200, watch=(finished := Silent()))
    assert finished.shares == [1.0]


def test_chunks_are_the_same_wherever_reading_begins(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in mixed_inputs(tmp_path)]
    inputs = open_inputs(find_inputs(names, lambda name, done, total: None), Columns("text", None, ()))
    whole = list(pending(inputs, {}, 16))
    assert sum(len(chunk.texts) + len(chunk.rejected) for chunk in whole) == 243
    assert whole[0].start == Position()
    done = {chunk.number: (chunk.start, chunk.end) for chunk in whole}
    for missing in range(len(whole)):
        (again,) = pending(inputs, {number: ends for number, ends in done.items() if number != missing}, 16)
        first = whole[missing]
        assert (again.number, again.start, again.end) == (first.number, first.start, first.end)
        assert (again.texts, again.rejected) == (first.texts, first.rejected)
        assert again.beside == first.beside


def test_a_part_is_safe_on_the_disk_before_it_has_its_name(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what a run that was killed left of one is removed."""
    saved: list[tuple[int, bool]] = []
    part, fsync = tmp_path / "out/part-00000.parquet", os.fsync

    def note(descriptor: int) -> None:
        fsync(descriptor)
        saved.append((os.fstat(descriptor).st_ino, part.exists()))

    monkeypatch.setattr("os.fsync", note)
    (tmp_path / "out/_job").mkdir(parents=True)
    (tmp_path / "out/_job/.part-00000.parquet.1234.part").touch()
    write(tmp_path / "a.txt", TEXTS)
    embed("a.txt")
    assert (part.stat().st_ino, False) in saved
    assert sorted(content(tmp_path / "out")) == ["_job/job.json", "_job/summary.json", "part-00000.parquet"]


def test_a_finished_job_does_nothing_when_it_runs_again(embed: Embed, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", TEXTS)
    first = embed("a.txt")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    watch = Stopping(0)
    assert embed("a.txt", watch=watch) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")} == times


def test_two_jobs_do_not_write_to_one_folder(embed: Embed, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", TEXTS)
    with locked(tmp_path / "out"), pytest.raises(UsageError, match=r"another process is writing to .*: wait until"):
        embed("a.txt")
    assert embed("a.txt").texts == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vectors": VectorOptions(dimensions=8)}, "dimensions: 32 and 8"),
        ({"vectors": VectorOptions(dtype="float16")}, "dtype: 'float32' and 'float16'"),
        ({"vectors": VectorOptions(prompt="a: ")}, "prompt: '' and 'a: '"),
        ({"id_column": "id"}, "id: None and 'id'"),
        ({"keep": ("year",)}, "keep: [] and ['year']"),
        ({"part_rows": 3}, "rows of a part: 16384 and 3"),
        ({"max_length": 9}, "vector space, max_length: 20, cut on the right and 9, cut on the right"),
    ],
)
def test_another_job_in_the_folder_is_refused_and_the_difference_named(
    embed: Embed, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    write(tmp_path / "a.csv", TEXTS)
    embed("a.csv")
    before = content(tmp_path / "out")
    with pytest.raises(UsageError, match="has another job") as error:
        embed("a.csv", **change)
    assert words in str(error.value)
    assert content(tmp_path / "out") == before
    embed("a.csv", force=True, **change)
    assert content(tmp_path / "out") != before


def test_other_inputs_and_another_model_are_refused(embed: Embed, many_kinds: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", TEXTS)
    embed("a.txt")
    write(tmp_path / "b.txt", TEXTS)
    with pytest.raises(UsageError, match="1 and 2 input files"):
        embed("a.txt", "b.txt")
    with pytest.raises(UsageError, match=r"input a\.txt and b\.txt"):
        embed("b.txt")
    with pytest.raises(UsageError, match=r"vector space, tensors: .*; vector space, pooling: mean and cls; model: "):
        embed("a.txt", folder=many_kinds)
    write(tmp_path / "a.txt", TEXTS[::-1])
    with pytest.raises(UsageError, match=r"a\.txt has another content"):
        embed("a.txt")


def test_an_input_that_is_lost_or_changes_meanwhile_is_named_and_the_job_goes_on_later(
    embed: Embed, tmp_path: Path
) -> None:
    inputs = mixed_inputs(tmp_path)
    embed(*inputs, out="whole", part_rows=16)
    kept = (tmp_path / "e.csv.gz").read_bytes()

    class Losing(Stopping):
        def advance(self, texts: int, share: float) -> None:
            self.left -= 1
            if self.left == 0:
                (tmp_path / "e.csv.gz").unlink()

    with pytest.raises(UsageError, match=r"e\.csv\.gz is gone; put it back and run the same command again"):
        embed(*inputs, part_rows=16, watch=Losing(2))

    class Changing(Stopping):
        def advance(self, texts: int, share: float) -> None:
            (tmp_path / "e.csv.gz").write_bytes(kept + kept)

    (tmp_path / "e.csv.gz").write_bytes(kept)
    with pytest.raises(UsageError, match=r"e\.csv\.gz changed while it was read; finish writing it before a job"):
        embed(*inputs, part_rows=16, watch=Changing(0))
    (tmp_path / "e.csv.gz").write_bytes(kept)
    embed(*inputs, part_rows=16)
    assert content(tmp_path / "out") == content(tmp_path / "whole")

"""`onnxembed load`: what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs the extra [bulk]")
pytest.importorskip("lancedb", reason="needs lancedb")

from running import Run, refused


def test_a_line_says_how_many_rows_are_there(run: Run, artifact: Path) -> None:
    Path("a.jsonl").write_text('{"n": 1, "text": "the cat"}\n{"n": 1, "text": "it was"}\n{"n": 2, "text": "a"}\n')
    assert run("embed", artifact, "a.jsonl", "-o", "out/", "--id-column", "n").code == 0
    out = run("load", "out", "--to", "lancedb:db/docs").out
    assert out.splitlines() == [
        "lancedb:db/docs: 3 rows written; the collection has 2",
        "1 fewer than the job has rows: of one id the last row stays, or some were deleted there",
    ]
    again = run("load", "out", "--to", "lancedb:db/docs").out
    assert again.startswith("lancedb:db/docs: 0 rows written, 3 were there already; the collection has 2\n")
    assert refused(run("load", "out", "--to", "lancedb:docs"), "names no folder: write lancedb:FOLDER/NAME")
    assert refused(run("load", "nowhere", "--to", "lancedb:db/docs"), "nowhere has no job of onnxembed embed")

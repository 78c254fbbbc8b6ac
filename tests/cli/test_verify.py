"""`onnxembed verify`: what it prints and records, and how it fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from onnxembed.manifest import FILE_NAME
from onnxembed.proof.probes import PROBES
from onnxembed.verify import verify as verifying
from running import Run, needs_torch, refused


@needs_torch
@pytest.mark.torch
def test_verify_prints_and_records_what_it_measured(run: Run, artifact: Path) -> None:
    shutil.copytree(artifact, "copy")
    Path("more.txt").write_text("more\ntexts\n")
    code, out, err = run("verify", "copy", "--texts", "more.txt")
    assert (code, err) == (0, "")
    assert out.startswith(f"verified fp32 on {len(PROBES) + 4} texts against sentence-transformers ")
    assert out in run("inspect", "copy").out
    code, out, _ = run("verify", "copy", "--json")
    assert code == 0
    assert (
        json.loads(out)["manifest"]["verification"] == json.loads(Path("copy", FILE_NAME).read_text())["verification"]
    )


@needs_torch
@pytest.mark.torch
def test_verify_reads_texts_from_standard_input(run: Run, artifact: Path) -> None:
    shutil.copytree(artifact, "copy")
    Path("more.csv").write_text("more\n")
    assert refused(run("verify", "copy", "--texts", "more.csv"), "read it as standard input: - < more.csv")
    code, out, _ = run("verify", "copy", "--texts", "-", stdin=b"more\ntexts\n")
    assert (code, out.startswith(f"verified fp32 on {len(PROBES) + 4} texts")) == (0, True)


def test_verify_refuses_an_absent_folder_and_missing_extras(
    run: Run, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run("verify", "absent")
    assert (code, out) == (2, "")
    assert "'absent' does not exist" in err
    monkeypatch.setattr(verifying, "find_spec", lambda name: None if name == "torch" else object())
    assert refused(run("verify", artifact), "torch not installed", "pip install 'onnxembed[torch]'")

"""Jobs in processes of their own that are killed, interrupted, or run out of disk: nothing is lost or repeated."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs the extra [bulk]")

import pyarrow.parquet as pq

from jobs import content
from running import USUAL, command
from tiny_embedders import texts_of_many_lengths

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals and limits of POSIX")

SLOW = """
import sys, time
from onnxembed.cli import main
from onnxembed.execution.session import Session

def run(self, *arguments, **options):
    time.sleep(0.004)
    return original(self, *arguments, **options)

original, Session.run = Session.run, run
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("in") / "texts.jsonl"
    lines = [json.dumps({"text": text if i % 40 else None}) for i, text in enumerate(texts_of_many_lengths(1500))]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def arguments(artifact: Path, texts: Path, out: Path) -> list[str]:
    return ["embed", *map(str, (artifact, texts)), "-o", f"{out}/", "--part-rows", "50", "--threads", "2"]


@pytest.fixture(scope="module")
def expected(artifact: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The output of a run that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole") / "out"
    subprocess.run(command(*arguments(artifact, texts, out)), env=USUAL, check=True, capture_output=True, timeout=100)
    found = content(out)
    assert len(found) == 33  # 30 parts, the job, the summary, the rejected rows
    return found


def test_the_output_has_every_row_once(expected: dict[str, bytes], tmp_path: Path) -> None:
    ids = []
    for name, data in expected.items():
        if not name.endswith("json"):
            (tmp_path / "part.parquet").write_bytes(data)
            ids += pq.read_table(tmp_path / "part.parquet")["id"].to_pylist()
    assert sorted(ids) == list(range(1500))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_job_that_is_stopped_at_random_moments_ends_with_the_same_bytes(
    artifact: Path, texts: Path, expected: dict[str, bytes], tmp_path: Path, number: signal.Signals
) -> None:
    out, moments = tmp_path / "out", random.Random(number)
    stopped = 0
    for _ in range(6):
        line = [sys.executable, "-c", SLOW, *arguments(artifact, texts, out)]
        with subprocess.Popen(line, env=USUAL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            before = len(list(out.glob("part-*")))
            while process.poll() is None and len(list(out.glob("part-*"))) == before:
                time.sleep(0.005)
            time.sleep(moments.uniform(0, 0.3))
            process.send_signal(number)
            _, err = process.communicate(timeout=100)
        if process.returncode == 0:
            break
        stopped += 1
        if number == signal.SIGINT:
            assert err.strip() == "onnxembed: interrupted"
        for path in out.glob("part-*"):
            assert path.read_bytes() == expected[path.name]
    subprocess.run(command(*arguments(artifact, texts, out)), env=USUAL, check=True, capture_output=True, timeout=100)
    assert stopped > 1
    assert content(out) == expected


@pytest.mark.parametrize("blocks", [1, 3, 6, 8])
def test_a_full_disk_is_named_and_the_job_goes_on_afterwards(
    artifact: Path, texts: Path, expected: dict[str, bytes], tmp_path: Path, blocks: int
) -> None:
    """A process that may write no larger files gets the error of a full disk in the middle of a part."""
    out = tmp_path / "out"
    line = f"ulimit -f {blocks}; {shlex.join(command(*arguments(artifact, texts, out)))}"
    done = subprocess.run(["bash", "-c", line], env=USUAL, capture_output=True, check=False, timeout=100, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"onnxembed: cannot write {out}/")
    assert done.stderr.endswith(": File too large\n")
    assert done.stderr.count("\n") == 1
    assert [path for path in out.rglob("*") if path.name.endswith(".part")] == []
    subprocess.run(command(*arguments(artifact, texts, out)), env=USUAL, check=True, capture_output=True, timeout=100)
    assert content(out) == expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, which a job fills; 160 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=160k", "none", str(place)]
    if (
        sys.platform != "linux"
        or os.geteuid() != 0
        or subprocess.run(line, check=False, capture_output=True).returncode
    ):
        pytest.skip("needs root, and Linux that lets it mount a disk in memory")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full_is_named_and_a_larger_one_lets_the_job_go_on(
    artifact: Path, texts: Path, expected: dict[str, bytes], small_disk: Path
) -> None:
    out = small_disk / "out"
    for _ in range(2):
        line = command(*arguments(artifact, texts, out))
        done = subprocess.run(line, env=USUAL, capture_output=True, check=False, timeout=100, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith(f"onnxembed: cannot write {out}/")
        assert done.stderr.endswith(": No space left on device\n")
        assert done.stderr.count("\n") == 1
        assert [path for path in out.rglob("*") if path.name.endswith(".part")] == []
        parts = list(out.glob("part-*"))
        assert 0 < len(parts) < 30
        assert all(path.read_bytes() == expected[path.name] for path in parts)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    subprocess.run(command(*arguments(artifact, texts, out)), env=USUAL, check=True, capture_output=True, timeout=100)
    assert content(out) == expected

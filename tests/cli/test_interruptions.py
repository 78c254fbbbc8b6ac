"""Commands that are interrupted: Ctrl-C and other signals, at any moment, and what a killed command leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onnxembed.cli import main
from running import USUAL, command, names, part_files, start, wait_for


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_embed_leaves_nothing(artifact: Path, tmp_path: Path, number: signal.Signals) -> None:
    with start("embed", artifact, "-", "-o", "v.npy", cwd=tmp_path, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"the cat\n" * 5000)
        process.stdin.flush()
        wait_for(lambda: part_files(tmp_path))  # from now on it waits for more
        process.send_signal(number)
        message = process.stderr.read().decode().strip()
    expected = (130, "onnxembed: interrupted") if number == signal.SIGINT else (128 + number, "")
    assert (process.returncode, message) == expected
    assert names(tmp_path) == []


BUSY = """
import sys, time
from onnxembed.cli import main
from onnxembed.execution.session import Session

def run(self, outputs, feeds, **options):
    print(flush=True)
    time.sleep(0.3)
    return original(self, outputs, feeds, **options)

original, Session.run = Session.run, run
main(sys.argv[1:])
"""


def test_busy_threads_are_interrupted_too(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("".join(f"{i} {'the ' * (i % 18)}\n" for i in range(50_000)))
    arguments = ("embed", artifact, "texts.txt", "-o", "v.npy")
    with start(*arguments, program=BUSY, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        interrupted = time.monotonic()
        assert process.stderr.read().decode().strip() == "onnxembed: interrupted"
    assert process.returncode == 130
    assert time.monotonic() - interrupted < 10
    assert names(tmp_path) == ["texts.txt"]


SLOW = """
import sys, time
from onnxembed.cli import main
from onnxembed.cli.progress import ProgressLine

def wait(self, stage, done, total):
    print(stage, flush=True)
    if stage == "hashing":
        time.sleep(60)

ProgressLine.__call__ = wait
main(sys.argv[1:])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_export_leaves_nothing(checkpoint: Path, tmp_path: Path, number: signal.Signals) -> None:
    arguments = ("export", checkpoint, "-o", "out", "--no-verify")
    with start(*arguments, program=SLOW, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while process.stdout.readline().strip() != b"hashing":
            pass
        assert part_files(tmp_path)
        process.send_signal(number)
        message = process.stderr.read().decode().strip()
    expected = (130, "onnxembed: interrupted") if number == signal.SIGINT else (128 + number, "")
    assert (process.returncode, message) == expected
    assert names(tmp_path) == []


def test_ctrl_c_again_and_again_is_one_wish(checkpoint: Path, tmp_path: Path) -> None:
    """A second one would interrupt what removes the draft."""
    with start("export", checkpoint, "-o", "out", program=SLOW, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while process.stdout.readline().strip() != b"hashing":
            pass
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.002)
        message = process.stderr.read().decode().strip()
    assert (process.returncode, message) == (130, "onnxembed: interrupted")
    assert names(tmp_path) == []


def test_what_a_killed_embed_left_is_removed_by_the_next_run_and_a_live_one_keeps_its_own(
    artifact: Path, tmp_path: Path
) -> None:
    def begun() -> subprocess.Popen[bytes]:
        before = {*part_files(tmp_path)}
        process = start("embed", artifact, "-", "-o", "v.npy", cwd=tmp_path)
        assert process.stdin is not None
        process.stdin.write(b"the cat\n" * 5000)
        process.stdin.flush()
        wait_for(lambda: {*part_files(tmp_path)} - before)
        return process

    foreign = [".v.npy.part", ".v.npy.12.part", ".w.npy.12345678.part"]
    for name in foreign:
        (tmp_path / name).write_text("somebody else's")
    with begun() as killed:
        killed.kill()
    (left,) = {*part_files(tmp_path)} - {*foreign}
    with begun() as live:
        (kept,) = {*part_files(tmp_path)} - {*foreign}
        assert kept != left
        done = subprocess.run(
            command("embed", artifact, "the cat", "-o", "v.npy"), cwd=tmp_path, env=USUAL, check=False, timeout=60
        )
        assert done.returncode == 0
        assert {*part_files(tmp_path)} == {*foreign, kept}
        live.kill()


def test_what_a_killed_export_left_is_removed_by_the_next_run(checkpoint: Path, tmp_path: Path) -> None:
    arguments = ("export", checkpoint, "-o", "out", "--no-verify")
    with start(*arguments, program=SLOW, cwd=tmp_path) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != b"hashing":
            pass
        process.kill()
    assert part_files(tmp_path)
    subprocess.run(command(*arguments), cwd=tmp_path, env=USUAL, check=True, timeout=60, capture_output=True)
    assert names(tmp_path) == ["out"]


MOMENTS = [0.1 * step for step in range(11)]

LISTENING = """
import signal
from onnxembed import __main__
handle = signal.signal
def announced(*given):
    signal.signal = handle
    handle(*given)
    print(flush=True)
signal.signal = announced
__main__.main()
"""
"""The command, which prints an empty line once it answers Ctrl-C: before that, Python does."""


@pytest.mark.parametrize("line", ["embed ARTIFACT -", "serve ARTIFACT --port 0", "export CHECKPOINT --dry-run"])
def test_ctrl_c_at_any_moment_is_one_line(line: str, artifact: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Modules import for a second, and then the work begins."""
    if line.startswith("serve"):
        pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")
    places = {"ARTIFACT": str(artifact), "CHECKPOINT": str(checkpoint)}
    arguments = [places.get(word, word) for word in line.split()]
    for moment in MOMENTS:
        with start(*arguments, program=LISTENING, cwd=tmp_path, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            time.sleep(moment)
            process.send_signal(signal.SIGINT)
            printed = process.stderr.read().decode()
        assert "Traceback" not in printed, moment
        if arguments[0] == "serve":
            assert process.returncode == 0, (moment, printed)
        elif process.returncode not in (0, -signal.SIGINT):  # it had ended, or Python was about to
            assert (process.returncode, printed.strip()) == (130, "onnxembed: interrupted"), moment
    assert names(tmp_path) == []


IMPORTING = """
import os, signal, sys, types
from importlib import abc, machinery, import_module
import click
from onnxembed import cli

class Finder(abc.MetaPathFinder, abc.Loader):
    def find_spec(self, name, path, target=None):
        return machinery.ModuleSpec(name, self) if name in ("fragile", "unfinished") else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        os.kill(os.getpid(), signal.SIGINT)
        print("imported", flush=True)
        if module.__name__ == "unfinished":
            return
        import unfinished

sys.meta_path.insert(0, Finder())

@cli.cli.command()
def work():
    import fragile
    print("working", flush=True)
    signal.pause()
    print("not reached", flush=True)

cli.main(["work"])
"""
"""A command that imports a module, and another in it. Ctrl-C comes during both."""


def test_ctrl_c_waits_until_an_import_ends(tmp_path: Path) -> None:
    """An exception inside the initialization of a module of C code can crash the process without a word."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING], env=USUAL, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr.strip()) == (130, "onnxembed: interrupted")
    assert done.stdout.splitlines() == ["imported", "imported", "working"]


def test_a_command_that_is_not_interrupted_leaves_the_timer_of_its_process_alone() -> None:
    """Limits on the time of tests are such timers."""
    handler, before = signal.getsignal(signal.SIGALRM), signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        with pytest.raises(SystemExit):
            main(["--version"])
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 900
        assert signal.getsignal(signal.SIGALRM) is handler
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)

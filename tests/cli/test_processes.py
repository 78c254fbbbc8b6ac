"""The command line in processes of its own: terminals, pipes, full disks."""

from __future__ import annotations

import io
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import termios
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed import OnnxEmbedder, __version__
from onnxembed.manifest import FILE_NAME
from running import USUAL, command, names, part_files, rows, start, wait_for


@pytest.mark.quiet_tokenizers
def test_export_and_embed_in_processes_of_their_own(checkpoint: Path, tmp_path: Path) -> None:
    def call(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env=USUAL,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            check=True,
            timeout=60,
        )

    exported = call("export", checkpoint, "--no-verify")
    assert exported.stderr == ""
    assert exported.stdout.splitlines()[0].startswith("tiny-bert-onnx: 32 dimensions, ")
    embedded = call("embed", "tiny-bert-onnx", "-", stdin="the cat\n\nStraße 東京\n")
    assert embedded.stderr == ""
    with OnnxEmbedder(tmp_path / "tiny-bert-onnx") as model:
        assert np.array_equal(rows(embedded.stdout), model.encode(["the cat", "", "Straße 東京"]))


@pytest.mark.parametrize(("closed", "name"), [("<&-", "input"), (">&-", "output"), ("2>&-", "error")])
def test_a_closed_stream_is_refused(artifact: Path, tmp_path: Path, closed: str, name: str) -> None:
    line = f"{shlex.join(command('embed', artifact, 'the cat', '-o', 'v.npy'))} {closed}"
    done = subprocess.run(line, shell=True, cwd=tmp_path, env=USUAL, capture_output=True, check=False, timeout=60)
    message = (
        "" if name == "error" else f"onnxembed: standard {name} is closed; redirect it, for example to /dev/null\n"
    )
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", message)
    assert names(tmp_path) == []


def test_the_command_is_the_one_that_is_installed() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    module, _, name = project["project"]["scripts"]["onnxembed"].partition(":")
    program = f"import sys; from {module} import {name}; sys.argv[1:] = ['--version']; {name}()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.decode()) == (0, f"onnxembed, version {__version__}\n")


def test_a_reader_that_stops_early_is_not_an_error(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("".join(f"the cat {i}\n" for i in range(5000)))
    with start("embed", artifact, tmp_path / "texts.txt", stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(rows(process.stdout.readline().decode())) == 1
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_full_disk_is_reported_in_one_sentence(artifact: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with full.open("wb") as out:
        line = command("embed", artifact, "the cat")
        done = subprocess.run(line, env=USUAL, stdout=out, stderr=subprocess.PIPE, check=False, timeout=60)
    assert (done.returncode, done.stderr.decode()) == (2, "onnxembed: input or output: No space left on device\n")


@pytest.mark.parametrize(
    "encoding",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
)
def test_a_terminal_without_unicode_is_not_an_error(
    checkpoint: Path, artifact: Path, tmp_path: Path, encoding: dict[str, str]
) -> None:
    shutil.copytree(artifact, tmp_path / "out")
    manifest = (artifact / FILE_NAME).read_text().replace('"to be: "', '"Übung 東京: "')
    (tmp_path / "out" / FILE_NAME).write_text(manifest, encoding="utf-8")

    def call(*arguments: str) -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            command(*arguments), cwd=tmp_path, env=USUAL | encoding, capture_output=True, check=False, timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    code, out, err = call("inspect", "out")
    assert (code, err) == (0, b"")
    assert b"prompt           query: " in out
    assert call("inspect", "out", "--json") == (0, manifest.encode(), b"")
    code, out, err = call("embed", "out", "a", "--prompt-name", "東京")
    assert (code, out) == (2, b"")
    assert err.startswith(b"onnxembed: ")
    assert err.count(b"\n") == 1


def on_a_terminal(
    *arguments: object,
    stdin: Callable[[io.BufferedWriter], None] = lambda file: None,
    cwd: Path,
    printing: bool = False,
    **env: str,
) -> str:
    """What a command shows on a terminal: its standard error, and when `printing` its standard output."""
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 80))
    out = child if printing else subprocess.DEVNULL
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": out, "stderr": child}
    with subprocess.Popen(command(*arguments), env={**USUAL, **env}, cwd=cwd, **pipes) as process:
        os.close(child)
        assert isinstance(process.stdin, io.BufferedWriter)
        stdin(process.stdin)
        process.stdin.close()
        shown = b""
        try:
            while chunk := os.read(parent, 4096):
                shown += chunk
        except OSError:  # how Linux ends the reading of a terminal
            pass
        os.close(parent)
    assert process.returncode == 0, shown
    return shown.decode()


ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.quiet_tokenizers
@pytest.mark.parametrize("arguments", [["inspect", "ARTIFACT"], ["export", "CHECKPOINT", "--dry-run"]])
def test_a_terminal_gets_lines_that_fit_and_a_pipe_gets_them_whole(
    artifact: Path, checkpoint: Path, tmp_path: Path, arguments: list[str]
) -> None:
    places = {"ARTIFACT": artifact, "CHECKPOINT": checkpoint}
    call = [places.get(argument, argument) for argument in arguments]
    shown = on_a_terminal(*call, cwd=tmp_path, printing=True, COLUMNS="60", TERM="xterm", NO_COLOR="")
    assert "\x1b[1m" in shown  # bold
    plain = [line for line in ESCAPES.sub("", shown).replace("\r", "").splitlines() if line]
    piped = subprocess.run(command(*call), cwd=tmp_path, env=USUAL, capture_output=True, text=True, check=True).stdout
    assert "\x1b" not in piped
    assert max(map(len, piped.splitlines())) > 80
    long = [line for line in plain if len(line) > 60 and " " in line.strip()[17:]]  # a word is kept whole
    assert [line for line in long if "onnxembed verify" not in line] == []  # and so is a command to be copied
    assert " ".join(plain).split() == piped.split()
    assert ESCAPES.search(on_a_terminal(*call, cwd=tmp_path, printing=True, TERM="xterm", NO_COLOR="1")) is None


def test_what_is_no_column_is_not_bold_on_a_terminal(tmp_path: Path) -> None:
    shown = on_a_terminal("recipes", cwd=tmp_path, printing=True, COLUMNS="60", TERM="xterm", NO_COLOR="")
    assert ESCAPES.search(shown) is None
    assert any(line.startswith("  ") for line in shown.splitlines())  # what is wrapped is indented


def test_export_shows_its_stages_on_a_terminal(checkpoint: Path, tmp_path: Path) -> None:
    shown = on_a_terminal("export", checkpoint, "-o", "out", "--no-verify", cwd=tmp_path)
    assert "writing fp32 weights" in shown
    assert "hashing" in shown
    assert "\n" not in shown  # one line for all
    assert shown.endswith("\r")  # which is taken away


@pytest.mark.parametrize("printing", [False, True])
def test_embed_counts_on_a_terminal_that_shows_no_vectors(artifact: Path, tmp_path: Path, printing: bool) -> None:
    def slowly(file: io.BufferedWriter) -> None:
        file.write(b"the cat\n" * 2500)
        file.flush()
        if not printing:
            wait_for(lambda: part_files(tmp_path))
        time.sleep(0.7)
        file.write(b"the cat\n")

    arguments = [] if printing else ["-o", "v.npy"]
    shown = on_a_terminal("embed", artifact, "-", *arguments, stdin=slowly, cwd=tmp_path, printing=printing)
    assert bool(re.search(r"embedding: [\d,]+ texts", shown)) is not printing


def test_a_program_that_waits_for_each_answer_gets_it(artifact: Path) -> None:
    with start("embed", artifact, "-", stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers = []
        for line in (b"the cat\n", b"\n", b"it was\n", b"one\ntwo\n"):
            process.stdin.write(line)
            process.stdin.flush()
            answers += [process.stdout.readline() for _ in range(line.count(b"\n"))]
        process.stdin.close()
        assert process.stdout.read() == b""
    with OnnxEmbedder(artifact) as model:
        expected = model.encode(["the cat", "", "it was", "one", "two"])
    assert np.allclose(rows(b"".join(answers).decode()), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("redirection", "where"),
    [
        ("- < docs.jsonl --jsonl -o docs.jsonl", "the output docs.jsonl is the file that is read (standard input)"),
        ("/dev/fd/3 3< docs.jsonl --jsonl -o docs.jsonl", "the output docs.jsonl is the file that is read (/dev/fd/3)"),
        ("docs.jsonl >> docs.jsonl", "standard output is the file that is read (docs.jsonl)"),
        ("- --jsonl < docs.jsonl >> docs.jsonl", "standard output is the file that is read (standard input)"),
    ],
)
def test_the_output_is_not_the_input_through_redirections(
    artifact: Path, tmp_path: Path, redirection: str, where: str
) -> None:
    (tmp_path / "docs.jsonl").write_text('{"text": "my only copy"}\n')
    line = f"{shlex.join(command('embed', artifact))} {redirection}"
    done = subprocess.run(line, shell=True, cwd=tmp_path, env=USUAL, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == f"onnxembed: {where}: write to another one\n"
    assert (tmp_path / "docs.jsonl").read_text() == '{"text": "my only copy"}\n'


@pytest.mark.quiet_tokenizers
@pytest.mark.parametrize(
    "arguments", [("embed", "ARTIFACT", "texts.txt", "-o", "out"), ("export", "MODEL", "-o", "out")]
)
def test_a_file_that_may_not_grow_is_named(
    checkpoint: Path, artifact: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "texts.txt").write_text("".join(f"{i}\n" for i in range(2000)))
    places = {"ARTIFACT": str(artifact), "MODEL": str(checkpoint), "out": "out.npy"}
    line = f"ulimit -f 20; {shlex.join(command(*(places.get(word, word) for word in arguments)))}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=USUAL, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.fullmatch(r"onnxembed: cannot write .*out\.npy: File too large\n", done.stderr.decode())
    assert names(tmp_path) == ["texts.txt"]

"""Exit codes: 1 a check failed, 2 the command or the model is not usable, 3 the network failed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hub_server import HubServer
from onnxembed.cli import cli, exit_code
from onnxembed.errors import (
    HubError,
    IntegrityError,
    ManifestError,
    NetworkError,
    NoReferenceError,
    OnnxEmbedError,
    RecipeError,
    UsageError,
    VerificationError,
)
from running import Run, refused


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (VerificationError, 1),
        (NoReferenceError, 2),
        (UsageError, 2),
        (ManifestError, 2),
        (IntegrityError, 2),
        (RecipeError, 2),
        (HubError, 2),
        (NetworkError, 3),
    ],
)
def test_an_error_has_the_exit_code_of_its_kind(error: type[OnnxEmbedError], code: int) -> None:
    assert exit_code(error("no")) == code


def test_a_hub_that_fails_is_3_and_one_that_says_no_is_2(run: Run, hub: HubServer) -> None:
    for arguments in (["embed", "org/absent", "text"], ["export", "org/absent"], ["inspect", "org/absent"]):
        assert refused(run(*arguments, "--cache-dir", "cache"), "no such model on")
        hub.status = 503
        assert refused(run(*arguments, "--cache-dir", "cache"), "is busy (503", code=3)
        hub.status = None
        assert refused(run(*arguments, "--cache-dir", "cache", "--offline"), "local_files_only (--offline) is set")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "there is not enough memory for this"),
        (RecursionError("maximum recursion depth exceeded"), "a file is nested too deeply (maximum recursion depth"),
        (UnicodeEncodeError("utf-8", "a\udcff" + "b" * 500, 1, 2, "surrogates"), "a\\udcffbbb"),
    ],
)
def test_what_libraries_raise_is_one_sentence(
    run: Run, artifact: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli.commands["inspect"], "invoke", fail)
    outcome = run("inspect", artifact)
    assert refused(outcome, words)
    assert len(outcome.err) < 200


def test_folders_whose_names_are_not_utf_8(run: Run, artifact: Path, checkpoint: Path, tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"na\xefve")
    strange.mkdir()
    (strange / "model").symlink_to(artifact)
    (strange / "checkpoint").symlink_to(checkpoint)
    for arguments in (
        ["inspect", strange / "model"],
        ["embed", strange / "model", "the cat"],
        ["export", strange / "checkpoint", "--no-verify", "-o", "made"],
        ["export", checkpoint, "--no-verify", "-o", strange / "made"],
        ["inspect", strange / "absent"],
    ):
        outcome = run(*arguments)
        assert outcome.code == 0 or refused(outcome, "na")

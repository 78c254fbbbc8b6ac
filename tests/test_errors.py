"""Messages of errors stay readable, whatever a file holds."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from onnxembed import OnnxEmbedder, errors
from onnxembed.errors import IntegrityError, ManifestError, OnnxEmbedError, UnsaidError, UsageError
from onnxembed.manifest import FILE_NAME
from tiny import change_json

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OnnxEmbedError)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_has_a_bounded_length(kind: type[OnnxEmbedError]) -> None:
    assert str(kind("a.json sets x to 1")) == "a.json sets x to 1"
    path = "/" + "d" * 255 + "/" + "f" * 200
    assert str(kind(f"no folder at {path}")) == f"no folder at {path}"
    assert str(kind(f"tasks is '{'x' * 100_000}', not a list")) == (
        f"tasks is '{'x' * 99}... (100003 characters) not a list"
    )
    many = str(kind(f"unknown keys: {', '.join(map(str, range(100_000)))}"))
    assert many.startswith("unknown keys: 0, 1, 2, ")
    assert many.endswith(" characters)")
    assert len(many) < 4100


def test_errors_can_be_pickled() -> None:
    for error in (UsageError("no"), UnsaidError("no", "--pooling"), IntegrityError("no", "a.json")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), "no", vars(error))


def test_a_long_value_of_a_manifest_is_cut(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes((artifact / FILE_NAME).read_bytes())
    change_json(tmp_path / FILE_NAME, tasks="x" * 100_000)
    with pytest.raises(ManifestError, match=r"tasks is 'x+\.\.\. \(\d+ characters\)") as caught:
        OnnxEmbedder(tmp_path)
    assert len(str(caught.value)) < 500

"""`onnxembed serve`: options that cannot be; tests/serve has the server itself."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")

from running import Run, refused


def test_options_that_cannot_be_are_refused(run: Run, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\n")
    assert refused(run("serve", artifact, "--api-key-file", tmp_path / "keys"), "has no key")
    assert refused(run("serve", artifact, "--ssl-keyfile", "key.pem"), "--ssl-certfile")
    assert refused(run("serve", tmp_path), str(tmp_path))

"""The base of a LoRA adapter that lies alone, which is fetched, too."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from hub_files import MODEL, PLAIN, contents, push, write
from hub_server import HubServer
from onnxembed.errors import OnnxEmbedError, UnsupportedError
from onnxembed.hub.checkpoint_files import fetch_checkpoint
from onnxembed.hub.source import Fetched, HubOptions


def adapter(base: object, **config: object) -> dict[str, bytes]:
    config = {"peft_type": "LORA", "base_model_name_or_path": base, **config}
    return {
        "adapter_config.json": json.dumps(config).encode(),
        "adapter_model.safetensors": os.urandom(100),
        "tokenizer.json": PLAIN["tokenizer.json"],
    }


def test_the_base_of_an_adapter_comes_from_the_hub(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    commit = hub.push("org/base", write(tmp_path / "base", PLAIN))
    push(hub, adapter("org/base"), tmp_path)
    fetched = fetch_checkpoint(MODEL, cached)
    assert contents(fetched.folder) == contents(tmp_path / "source-1")
    assert fetched.base is not None
    assert fetched.base.name == commit
    assert contents(fetched.base) == PLAIN
    hub.requests.clear()
    assert fetch_checkpoint(MODEL, replace(cached, local_files_only=True)) == fetched
    assert hub.requests == []
    local = fetch_checkpoint(write(tmp_path / "here", adapter("org/base")), cached)
    assert local.base == fetched.base


def test_the_base_is_at_the_revision_that_the_adapter_names(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    tagged = hub.push("org/base", write(tmp_path / "base", PLAIN), "v1")
    hub.push("org/base", write(tmp_path / "newer", PLAIN | {"config.json": b'{"model_type": "newer"}'}))
    for revision in ("v1", tagged):
        fetched = fetch_checkpoint(write(tmp_path / f"at-{revision}", adapter("org/base", revision=revision)), cached)
        assert fetched.base is not None
        assert fetched.base.name == tagged


def test_the_base_of_an_adapter_may_be_a_folder_or_lie_beside_it(
    hub: HubServer, cached: HubOptions, tmp_path: Path
) -> None:
    base = write(tmp_path / "base", PLAIN)
    assert fetch_checkpoint(write(tmp_path / "by-path", adapter(str(base))), cached).base is None
    assert fetch_checkpoint(write(tmp_path / "beside", PLAIN | adapter("org/base")), cached).base is None
    assert hub.requests == []


def test_a_refused_adapter_costs_no_weights(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    hub.push("org/base", write(tmp_path / "base", PLAIN))
    push(hub, adapter("org/base"), tmp_path)

    def refuse(checkpoint: Fetched) -> None:
        assert checkpoint.base is not None
        assert (checkpoint.base / "config.json").is_file()
        raise UnsupportedError("no")

    with pytest.raises(UnsupportedError):
        fetch_checkpoint(MODEL, cached, examine=refuse)
    assert not [name for name in hub.downloaded() if name.endswith(".safetensors")]


@pytest.mark.parametrize(
    ("base", "files", "message"),
    [
        ("org/absent", {}, "no such model on"),
        ("org/base", {"README.md": b""}, r"org/base, the base that .*adapter_config\.json names, has no config\.json"),
        ("org/base", {"config.json": b"{}"}, r"the base of the adapter, has no model\.safetensors"),
        ("two words", {}, "'two words' is neither a folder nor the name of a model on the hub"),
    ],
)
def test_a_base_that_cannot_be_had_is_an_error(
    hub: HubServer, tmp_path: Path, base: str, files: dict[str, bytes], message: str
) -> None:
    hub.push("org/base", write(tmp_path / "base", files))
    push(hub, adapter(base), tmp_path)
    with pytest.raises(OnnxEmbedError, match=message):
        fetch_checkpoint(MODEL, HubOptions(cache_dir=tmp_path / "cache"))


def test_the_revision_of_a_base_must_be_one(hub: HubServer, cached: HubOptions, tmp_path: Path) -> None:
    for revision in (7, "../../x"):
        push(hub, adapter("org/base", revision=revision), tmp_path)
        with pytest.raises(OnnxEmbedError, match=r"revision is 7, not the name|revision '\.\./\.\./x' is not the name"):
            fetch_checkpoint(MODEL, cached)

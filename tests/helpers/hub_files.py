"""Made-up models: put them on a hub, look at what was downloaded, and fetch them from a fresh interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hub_server import HubServer
from onnxembed.hub.model_files import open_model_files
from onnxembed.hub.source import Fetched, HubOptions

MODEL = "org/model"
ABSENT_COMMIT = "0" * 40

ARTIFACT = {
    "onnxembed.json": b"{}",
    "tokenizer.json": b'{"model": {}}',
    "onnx/model.onnx": os.urandom(300_000),
}
MODULES = json.dumps(
    [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
        {"idx": 3, "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
).encode()
PLAIN = {
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": os.urandom(200_000),
}
CHECKPOINT = PLAIN | {
    "modules.json": MODULES,
    "config_sentence_transformers.json": b'{"prompts": {}}',
    "sentence_bert_config.json": b'{"max_seq_length": 512}',
    "vocab.txt": b"[PAD]\n[UNK]\n",
    "merges.txt": b"a b\n",
    "sentencepiece.bpe.model": os.urandom(5_000),
    "1_Pooling/config.json": b'{"pooling_mode": "mean"}',
    "2_Dense/config.json": b'{"in_features": 8}',
    "2_Dense/model.safetensors": os.urandom(10_000),
}
UNWANTED = dict.fromkeys(
    [
        ".gitattributes",
        "train_script.py",
        "pytorch_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "rust_model.ot",
        "model-q4.gguf",
        "consolidated.safetensors",
        "original/consolidated.00.pth",
        "coreml/model.mlmodel",
        "2_Dense/pytorch_model.bin",
        "onnx/model.onnx",
        "onnx/config.json",
        "openvino/openvino_model.bin",
        "openvino/config.json",
        "checkpoint-10/config.json",
        "checkpoint-10/model.safetensors",
    ],
    b"not needed",
)
SHARDS = {f"model-0000{part}-of-00002.safetensors": os.urandom(50_000) for part in (1, 2)}
INDEX = json.dumps({"weight_map": dict(zip("abcd", sorted(SHARDS) * 2, strict=True))}).encode()
SHARDED = {name: PLAIN[name] for name in ("config.json", "tokenizer.json")} | SHARDS
SHARDED["model.safetensors.index.json"] = INDEX


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fetch(
    model: str | os.PathLike[str], hub: HubOptions, *, wanted: Sequence[str], optional: Sequence[str] = ()
) -> Fetched:
    """Open a model's files, and have these in its folder."""
    files = open_model_files(model, hub)
    files.get(wanted, optional)
    files.remember()
    return Fetched(files.model, files.folder, files.revision)


def names(fetched: Fetched) -> set[str]:
    return set(contents(fetched.folder))


def push(hub: HubServer, files: Mapping[str, bytes], tmp_path: Path, revision: str = "main") -> str:
    """Commit these files and no others to MODEL."""
    return hub.push(MODEL, write(tmp_path / f"source-{len(os.listdir(tmp_path))}", files), revision)


def run(code: str, *arguments: object, **environment: str) -> str:
    """Run code in a fresh interpreter, where every warning is an error; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        env={name: value for name, value in os.environ.items() if not name.startswith("HF_")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()

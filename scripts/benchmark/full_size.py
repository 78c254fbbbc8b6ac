"""Export models of full published size, with random weights, and embed with them: seconds, peak memory, size.

Each checkpoint has the real config and tokenizer from DATA, a folder with a folder of configs for each model. It is
written to SCRATCH in the published file format. The smaller models are fetched from a local stand-in for the hub,
under their own names; the others are exported from their folders.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path

import click
import numpy as np

from models import torch_files
from models.hub_server import HubServer
from models.sample_texts import sample

Shapes = Iterator[tuple[str, tuple[int, ...]]]

BLOCK = np.random.default_rng(0).standard_normal(2**22, dtype=np.float32) * np.float32(0.02)

POOLINGS = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "lasttoken": "pooling_mode_lasttoken"}


@dataclass(frozen=True)
class Model:
    """One published model: where its config lies, how it pools, and in which format its weights are."""

    name: str
    config: str
    pooling: str
    normalize: bool
    max_length: int
    tokenizer: str
    torch_bin: bool = False
    from_hub: bool = True
    changes: tuple[tuple[str, object], ...] = ()


MODELS = {
    "gte-large": Model("Alibaba-NLP/gte-large-en-v1.5", "gte-large-en-v1.5", "cls", False, 8192, "gte-large-en-v1.5"),
    "bge-m3": Model("BAAI/bge-m3", "bge-m3", "cls", True, 8192, "xlm-roberta", torch_bin=True),
    "e5-large": Model(
        "intfloat/multilingual-e5-large", "multilingual-e5-large-instruct", "mean", True, 512, "xlm-roberta"
    ),
    "gte-qwen2": Model(
        "Alibaba-NLP/gte-Qwen2-1.5B-instruct",
        "qwen2-stella_en_1.5B_v5",
        "lasttoken",
        True,
        32768,
        "qwen2-stella_en_1.5B_v5",
        from_hub=False,
        changes=(("is_causal", False),),
    ),
}


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(list(MODELS)))
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--scratch", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--texts", default=16, show_default=True, help="How many texts to embed.")
@click.option("--precision", default="fp32", show_default=True)
def main(names: tuple[str, ...], data: Path, scratch: Path, texts: int, precision: str) -> None:
    for name in names or MODELS:
        model = MODELS[name]
        folder, output = scratch / name, scratch / f"{name}-onnx"
        print(f"{model.name}", flush=True)
        sizes = write_checkpoint(model, data, folder)
        print(f"   checkpoint {sum(sizes) / 1e6:,.0f} MB, largest tensor {max(sizes) / 1e6:,.0f} MB", flush=True)
        with ExitStack() as stack:
            environment = dict(os.environ)
            if model.from_hub:
                hub = stack.enter_context(HubServer({model.name: {"main": folder}}))
                environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(scratch / "hub"), "HF_HUB_DISABLE_XET": "1"}
            recipe = [] if model.from_hub else ["--recipe", model.name]
            source = model.name if model.from_hub else str(folder)
            options = ["--no-verify", "--force", "--precision", precision, "-o", str(output), *recipe]
            command = [sys.executable, "-m", "onnxembed", "export", source, *options]
            subprocess.run([sys.executable, "-m", "benchmark.peak_memory", *command], env=environment, check=True)
        size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
        print(f"   artifact {size / 1e6:,.0f} MB", flush=True)
        lines = scratch / "texts.txt"
        sources = sorted(path for path in (data.parent / "text").rglob("*") if path.is_file())
        lines.write_text("\n".join(sample(texts, sources)), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "benchmark.embed_lines", str(output), str(texts), str(lines)], check=True)
        shutil.rmtree(folder)
        shutil.rmtree(output)
        shutil.rmtree(scratch / "hub", ignore_errors=True)


def write_checkpoint(model: Model, data: Path, folder: Path) -> list[int]:
    """Write the checkpoint; returns the bytes of its tensors."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = json.loads((data / model.config / "config.json").read_text()) | dict(model.changes)
    write(folder / "config.json", config)
    shutil.copyfile(data / model.tokenizer / "tokenizer.json", folder / "tokenizer.json")
    if (data / model.config / "tokenizer_config.json").is_file():
        shutil.copyfile(data / model.config / "tokenizer_config.json", folder / "tokenizer_config.json")
    modules = ["Transformer", "Pooling"]
    if model.normalize:
        modules.append("Normalize")
    write(
        folder / "modules.json",
        [
            {"path": f"{number}_{name}" if number else "", "type": f"sentence_transformers.models.{name}"}
            for number, name in enumerate(modules)
        ],
    )
    write(folder / "1_Pooling/config.json", {flag: mode == model.pooling for mode, flag in POOLINGS.items()})
    write(folder / "sentence_bert_config.json", {"max_seq_length": model.max_length, "do_lower_case": False})
    shapes = list(SHAPES[config["model_type"]](config))
    if model.torch_bin:
        write_torch(folder, shapes)
    else:
        write_safetensors(folder, shapes)
    return [4 * prod(shape) for _, shape in shapes]


def write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def write_safetensors(folder: Path, shapes: list[tuple[str, tuple[int, ...]]]) -> None:
    header: dict[str, object] = {}
    place = 0
    for name, shape in shapes:
        end = place + 4 * prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes:
            for chunk in values(name, prod(shape)):
                file.write(chunk)


def write_torch(folder: Path, shapes: list[tuple[str, tuple[int, ...]]]) -> None:
    entries = {}
    for key, (name, shape) in enumerate(shapes):
        strides = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
        entries[name] = torch_files.tensor(torch_files.storage(str(key), prod(shape)), shape, strides)
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + torch_files.table(entries) + torch_files.STOP)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
        for key, (name, shape) in enumerate(shapes):
            with archive.open(f"archive/data/{key}", "w", force_zip64=True) as member:
                for chunk in values(name, prod(shape)):
                    member.write(chunk)


def values(name: str, count: int) -> Iterator[bytes]:
    """Small random numbers, or numbers around 1 for the weights of norms, which keeps activations finite."""
    is_scale = name.endswith("weight") and any(part in name.lower() for part in ("norm", "_ln"))
    block = BLOCK + np.float32(1) if is_scale else BLOCK
    for start in range(0, count, len(block)):
        yield block[: min(len(block), count - start)].tobytes()


def new(c: dict[str, int]) -> Shapes:
    width, inner = c["hidden_size"], c["intermediate_size"]
    yield "embeddings.word_embeddings.weight", (c["vocab_size"], width)
    yield "embeddings.token_type_embeddings.weight", (c["type_vocab_size"], width)
    yield from norm("embeddings.LayerNorm", width)
    for index in range(c["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        yield from linear(f"{layer}.attention.qkv_proj", 3 * width, width)
        yield from linear(f"{layer}.attention.o_proj", width, width)
        yield f"{layer}.mlp.up_gate_proj.weight", (2 * inner, width)
        yield from linear(f"{layer}.mlp.down_proj", width, inner)
        yield from norm(f"{layer}.attn_ln", width)
        yield from norm(f"{layer}.mlp_ln", width)


def roberta(c: dict[str, int]) -> Shapes:
    width, inner = c["hidden_size"], c["intermediate_size"]
    yield "embeddings.word_embeddings.weight", (c["vocab_size"], width)
    yield "embeddings.position_embeddings.weight", (c["max_position_embeddings"], width)
    yield "embeddings.token_type_embeddings.weight", (c["type_vocab_size"], width)
    yield from norm("embeddings.LayerNorm", width)
    for index in range(c["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            yield from linear(f"{layer}.attention.self.{part}", width, width)
        yield from linear(f"{layer}.attention.output.dense", width, width)
        yield from norm(f"{layer}.attention.output.LayerNorm", width)
        yield from linear(f"{layer}.intermediate.dense", inner, width)
        yield from linear(f"{layer}.output.dense", width, inner)
        yield from norm(f"{layer}.output.LayerNorm", width)


def qwen2(c: dict[str, int]) -> Shapes:
    width, inner, heads, kv = (
        c[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    )
    yield "embed_tokens.weight", (c["vocab_size"], width)
    for index in range(c["num_hidden_layers"]):
        layer = f"layers.{index}"
        yield from linear(f"{layer}.self_attn.q_proj", width, width)
        for part in ("k_proj", "v_proj"):
            yield from linear(f"{layer}.self_attn.{part}", width // heads * kv, width)
        yield f"{layer}.self_attn.o_proj.weight", (width, width)
        for part in ("gate_proj", "up_proj"):
            yield f"{layer}.mlp.{part}.weight", (inner, width)
        yield f"{layer}.mlp.down_proj.weight", (width, inner)
        yield f"{layer}.input_layernorm.weight", (width,)
        yield f"{layer}.post_attention_layernorm.weight", (width,)
    yield "norm.weight", (width,)


def linear(name: str, rows: int, columns: int) -> Shapes:
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)


def norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


SHAPES = {"new": new, "xlm-roberta": roberta, "qwen2": qwen2}

if __name__ == "__main__":
    main()

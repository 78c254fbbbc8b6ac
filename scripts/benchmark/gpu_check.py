"""Whether a GPU gives the CPU's vectors, computes everything itself, and keeps its memory flat: one command.

Of every architecture a small random model is made and exported here, without a download, in fp32, fp16 and bf16, and
packed where there is such a form. Each graph's vectors are compared with those of the fp32 graph on the CPU, for
texts together, which are padded, and for each alone. ONNX Runtime's profile says which provider ran what, and its
attention kernels say their names. Then a stream of texts of random lengths runs while memory is watched. Every line
is printed as soon as it is known; the exit status is 1 if one of them says FAIL.

--device cpu is a dry run of the same code: bf16 and packed graphs, which a CPU cannot run, are left out.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmark.entries import Device
from benchmark.made_up import text
from benchmark.measure import agreement, gpu_memory
from benchmark.models import write_checkpoint
from benchmark.worker import resident
from onnxembed import OnnxEmbedder, OnnxEmbedError
from onnxembed.arrays import IntArray
from onnxembed.decisions.flags import Flags
from onnxembed.execution.packing import pack
from onnxembed.execution.providers import CUDA, load_onnxruntime, wanted_providers
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import CUDA_ONLY, AttentionMode, Precision, read_manifest
from onnxembed.tokenizer.texts import Tokens, pad

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")

FLOORS = {"fp32": 0.99999, "fp16": 0.9999, "bf16": 0.999}
"""Least cosine with the fp32 vector of the CPU."""

LIMIT = 1024
SENTENCES = (1, 1, 2, 2, 3, 5, 5, 8, 13, 21, 30, 80)
"""Of each text; the last one is cut at the limit."""

GROWTH = 1.1
"""How much more memory the last quarter of the stream may take than the second."""

COMMON: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 256,
    "max_position_embeddings": LIMIT + 2,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
DECODER = {**COMMON, "num_key_value_heads": 1, "head_dim": 64}
LOCAL = {"sliding_window": 16, "sliding_window_pattern": 2}
MASKED = {"cls_token_id": 2, "sep_token_id": 3}

TextKind = tuple[dict[str, Any], AttentionMode | None]

# Heads of 64, as real models have them: the kernels that are fast take no odd sizes.
TEXT_KINDS: dict[str, TextKind] = {
    "bert": ({**COMMON, "model_type": "bert"}, None),
    "roberta": ({**COMMON, "model_type": "roberta", "pad_token_id": 1}, None),
    "distilbert": (
        {
            "model_type": "distilbert",
            "vocab_size": 512,
            "dim": 128,
            "hidden_dim": 256,
            "n_layers": 3,
            "n_heads": 2,
            "max_position_embeddings": LIMIT,
            "pad_token_id": 0,
        },
        None,
    ),
    "mpnet": ({**COMMON, "model_type": "mpnet", "pad_token_id": 1}, None),
    "gte": ({**COMMON, "model_type": "gte", "type_vocab_size": 2}, None),
    "nomic_bert": ({**COMMON, "model_type": "nomic_bert"}, None),
    "modernbert": (
        {**COMMON, **MASKED, "model_type": "modernbert", "local_attention": 32, "global_attn_every_n_layers": 2},
        None,
    ),
    "jina_embeddings_v3": ({**COMMON, "model_type": "jina_embeddings_v3", "pad_token_id": 1}, None),
    "eurobert": ({**COMMON, "model_type": "eurobert", "num_key_value_heads": 1, "mask_token_id": 4}, None),
    "qwen2": ({**DECODER, "model_type": "qwen2"}, "causal"),
    "qwen2 both ways": ({**DECODER, "model_type": "qwen2"}, "bidirectional"),
    "qwen3": ({**DECODER, "model_type": "qwen3"}, "causal"),
    "llama": ({**DECODER, "model_type": "llama"}, "causal"),
    "mistral": ({**DECODER, "model_type": "mistral", "sliding_window": 11}, "causal"),
    "gemma3_text": (
        {**DECODER, **LOCAL, "model_type": "gemma3_text", "use_bidirectional_attention": True},
        "bidirectional",
    ),
    "gemma3_text causal": ({**DECODER, **LOCAL, "model_type": "gemma3_text"}, "causal"),
}


@dataclass(frozen=True)
class Form:
    """One graph of a model: its precision, and whether it is the packed one."""

    folder: Path
    precision: Precision
    packed: bool = False

    @property
    def path(self) -> Path:
        """The graph's file."""
        variant = read_manifest(self.folder).variants[self.precision]
        return self.folder / (variant.packed.file if self.packed and variant.packed else variant.file)


class Checks:
    """Prints lines, and counts those that say FAIL."""

    def __init__(self) -> None:
        self.failures = 0

    def line(self, what: str, said: str, *, good: bool = True) -> None:
        """Print one."""
        self.failures += not good
        print(f"{'ok  ' if good else 'FAIL'}  {what:<34} {said}", flush=True)


@click.command(help=__doc__)
@click.option("--device", type=click.Choice(("cpu", "cuda")), default="cuda", show_default=True)
@click.option("--kind", "chosen", multiple=True, type=click.Choice(tuple(TEXT_KINDS)), help="Only this; may repeat.")
@click.option("--seconds", type=float, default=60.0, show_default=True, help="How long memory is watched.")
def main(*, device: Device, chosen: tuple[str, ...], seconds: float) -> None:
    checks = Checks()
    with tempfile.TemporaryDirectory() as scratch:
        for name in chosen or TEXT_KINDS:
            _check(checks, name, device, Path(scratch) / name.replace(" ", "-"))
        _watch_memory(checks, device, seconds, Path(scratch) / "memory")
    print(f"{checks.failures} failures on {device}", flush=True)
    sys.exit(checks.failures > 0)


def _check(checks: Checks, name: str, device: str, work: Path) -> None:
    """All graphs of one architecture."""
    config, attention = TEXT_KINDS[name]
    checkpoint = work / "checkpoint"
    write_checkpoint(checkpoint, config, limit=LIMIT, pooling="lasttoken" if attention == "causal" else "mean", std=0.1)
    flags = Flags(attention=attention, max_length=LIMIT)
    export(checkpoint, work / "padded", Options(PRECISIONS, flags))
    forms = [Form(work / "padded", precision) for precision in PRECISIONS]
    if ARCHITECTURES[config["model_type"]].packable:
        export(checkpoint, work / "packed", Options(("fp32", "fp16"), flags, packed=True))
        forms += [Form(work / "packed", "fp32", packed=True), Form(work / "packed", "fp16", packed=True)]
    texts = [text(random.Random(number), sentences) for number, sentences in enumerate(SENTENCES)]
    with OnnxEmbedder(work / "padded", precision="fp32", providers="cpu") as model:
        expected = model.encode(texts)
    for form in forms:
        what = f"{name}, {form.precision}{', packed' * form.packed}"
        if device == "cpu" and (form.packed or form.precision in CUDA_ONLY):
            print(f"      {what:<34} not on a CPU", flush=True)
        elif device == "cuda" and attention == "causal" and form.precision == "fp32":
            _check_refusal(checks, what, form, device)
        else:
            _check_form(checks, what, form, device, texts=texts, expected=expected)


def _check_refusal(checks: Checks, what: str, form: Form, device: str) -> None:
    """A graph whose attention CUDA has no kernels for must not open."""
    try:
        OnnxEmbedder(form.folder, precision=form.precision, providers=device).close()
    except OnnxEmbedError as error:
        checks.line(what, f"refused, as it should be: ...{str(error)[-140:]}", good="GroupQueryAttention" in str(error))
    else:
        checks.line(what, "opened, though CUDA has no kernels for its attention", good=False)


def _check_form(
    checks: Checks, what: str, form: Form, device: str, *, texts: Sequence[str], expected: np.ndarray[Any, Any]
) -> None:
    try:
        with OnnxEmbedder(form.folder, precision=form.precision, providers=device) as model:
            among = agreement(model.encode(texts), expected)
            alone = agreement(np.concatenate([model.encode(each) for each in texts]), expected)
            feeds = _batches(form, model.tokenize(texts), model.manifest.tokenization.pad_token_id.value)
        ran, kernels = _profile(form, device, feeds)
    except Exception as error:  # whatever it is, the other architectures are still of interest
        checks.line(what, f"{type(error).__name__}: {str(error)[:300]}", good=False)
        return
    least = min(among, alone)
    misplaced = {name: count for (provider, name), count in ran.items() if provider != device}
    copies = sum(count for (_, name), count in ran.items() if name.startswith("Memcpy"))
    said = f"least cosine {among:.6f} together, {alone:.6f} alone; {copies} copies; attention by {kernels or 'unnamed'}"
    good = least >= FLOORS[form.precision] and not misplaced
    checks.line(what, said + f"; on another provider: {misplaced}" * bool(misplaced), good=good)


def _batches(form: Form, texts: Sequence[Tokens], pad_token_id: int) -> list[dict[str, IntArray]]:
    """Inputs of one run of a single text, and of one of several texts with padding."""
    found = [pad(group, pad_token_id) for group in (texts[-2:-1], texts[:4])]
    return [dict(pack(feeds)) for feeds in found] if form.packed else found


def _profile(form: Form, device: str, batches: Sequence[dict[str, IntArray]]) -> tuple[Counter[tuple[str, str]], str]:
    """How often which operator ran on which device, as far as it computed numbers; and the attention kernels used.

    Operators that compute shapes and masks, none of whose outputs are floats, are the CPU's by ONNX Runtime's choice.
    """
    runtime = load_onnxruntime()
    options = runtime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(form.folder / "profile")
    wanted = wanted_providers(device)
    with _printed() as lines:
        session = runtime.InferenceSession(
            str(form.path), options, providers=[name for name, _ in wanted], provider_options=[of for _, of in wanted]
        )
        names = [value.name for value in session.get_inputs()]
        for batch in batches:
            session.run(["sentence_embedding"], {name: batch[name] for name in names})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ran: Counter[tuple[str, str]] = Counter()
    for event in events:
        about = event.get("args", {})
        if event.get("cat") != "Node" or "provider" not in about:
            continue
        floats = any("float" in kind for output in about.get("output_type_shape", []) for kind in output)
        if about["op_name"] != "If" and (floats or about["op_name"].startswith("Memcpy")):
            ran["cuda" if about["provider"] == CUDA else "cpu", about["op_name"]] += 1
    kernels = sorted({re.split(r"\W", line.rpartition("SdpaKernel=")[2])[0] for line in lines() if "Sdpa" in line})
    return ran, ", ".join(kernels)


@contextmanager
def _printed() -> Iterator[Callable[[], list[str]]]:
    """Have attention say which kernels it takes, on the standard output that libraries write to, and keep that."""
    os.environ["ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"] = "1"
    sys.stdout.flush()
    saved = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        found: list[str] = []
        try:
            yield lambda: found
        finally:
            os.dup2(saved, 1)
            os.close(saved)
            del os.environ["ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"]
            file.seek(0)
            found += file.read().decode(errors="replace").splitlines()


def _watch_memory(checks: Checks, device: Device, seconds: float, work: Path) -> None:
    """A stream of texts of random lengths; memory is compared between its second and its last quarter."""
    config = {**COMMON, "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6}
    write_checkpoint(work / "checkpoint", config, limit=LIMIT, pooling="mean")
    for packed in (False, True) if device == "cuda" else (False,):
        folder = work / f"artifact-{packed}"
        export(work / "checkpoint", folder, Options(("fp16",), packed=packed))
        points: list[tuple[float, float]] = []
        chance = random.Random(0)
        with OnnxEmbedder(folder, precision="fp16", providers=device) as model:
            start = time.monotonic()
            while (at := time.monotonic() - start) < seconds:
                texts = [text(chance, chance.choice((1, 1, 2, 3, 5, 20, 60))) for _ in range(chance.randint(1, 200))]
                model.encode(texts)
                points.append((at / seconds, (gpu_memory(device) or resident()) / 1e6))
        second = max((used for at, used in points if at < 0.5), default=0.0)
        last = max((used for at, used in points if at >= 0.75), default=second)
        what = f"memory, fp16{', packed' * packed}, {seconds:g} s"
        checks.line(what, f"{second:,.0f} MB at most by half, {last:,.0f} MB at the end", good=last <= GROWTH * second)


if __name__ == "__main__":
    main()

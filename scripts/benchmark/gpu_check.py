"""Whether a GPU gives the CPU's vectors, computes everything itself, and keeps its memory flat: one command.

A small random model of every architecture is made and exported, without a download, in fp32, fp16 and bf16, and in
packed form if it has one. Each graph's vectors are compared with those of the fp32 graph on the CPU, for texts in
padded batches and for each text alone. ONNX Runtime's profile says which provider ran what, and its attention
kernels print their names. Then texts of random lengths are embedded while memory is watched. Every line is printed
as soon as it is known; the exit status is 1 if one of them says FAIL.

--device cpu is a dry run of the same code, without bf16 and packed graphs, which a CPU cannot run.
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
from benchmark.models import export_artifact, write_checkpoint
from benchmark.worker import resident
from onnxembed import OnnxEmbedder, OnnxEmbedError
from onnxembed.arrays import Feeds
from onnxembed.execution.packing import pack
from onnxembed.execution.providers import CUDA, load_onnxruntime, wanted_providers
from onnxembed.manifest import CUDA_ONLY, AttentionMode, Precision, read_manifest
from onnxembed.tokenizer.texts import Tokens, pad

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")

FLOORS = {"fp32": 0.99999, "fp16": 0.9999, "bf16": 0.999}
"""The lowest cosine with the fp32 vector of the CPU."""

LIMIT = 1024
SENTENCES = (1, 1, 2, 2, 3, 5, 5, 8, 13, 21, 30, 80)
"""How many sentences each text has; the last text is cut at the limit."""

GROWTH = 1.1
"""How many times the memory of the first half the last quarter may take."""

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
BYTE_PAIRS = {"vocab_size": 2048}  # a row for every token of the tokenizer, whose tokens are not whole words alone
LOCAL = {"sliding_window": 16, "sliding_window_pattern": 2}
MASKED = {"cls_token_id": 2, "sep_token_id": 3}


@dataclass(frozen=True)
class Architecture:
    """A small model of one architecture."""

    config: dict[str, Any]
    """The config of transformers, with its model_type."""
    attention: AttentionMode | None = None
    """How a decoder's tokens see each other; None for an encoder."""
    packable: bool = False
    """Whether it has a form that CUDA runs without padding."""


# Heads of 64, as real models have them: the fast kernels take no odd sizes.
ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture({**COMMON, "model_type": "bert"}, packable=True),
    "roberta": Architecture({**COMMON, "model_type": "roberta", "pad_token_id": 1}, packable=True),
    "distilbert": Architecture(
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
        packable=True,
    ),
    "mpnet": Architecture({**COMMON, "model_type": "mpnet", "pad_token_id": 1}, packable=True),
    "gte": Architecture({**COMMON, "model_type": "gte", "type_vocab_size": 2}, packable=True),
    "nomic_bert": Architecture({**COMMON, "model_type": "nomic_bert"}, packable=True),
    "modernbert": Architecture(
        {**COMMON, **MASKED, "model_type": "modernbert", "local_attention": 32, "global_attn_every_n_layers": 2},
        packable=True,
    ),
    "jina_embeddings_v3": Architecture(
        {**COMMON, "model_type": "jina_embeddings_v3", "pad_token_id": 1}, packable=True
    ),
    "eurobert": Architecture({**COMMON, "model_type": "eurobert", "num_key_value_heads": 1, "mask_token_id": 4}),
    "qwen2": Architecture({**DECODER, **BYTE_PAIRS, "model_type": "qwen2"}, "causal"),
    "qwen2 both ways": Architecture({**DECODER, **BYTE_PAIRS, "model_type": "qwen2"}, "bidirectional"),
    "qwen3": Architecture({**DECODER, "model_type": "qwen3"}, "causal"),
    "llama": Architecture({**DECODER, "model_type": "llama"}, "causal"),
    "mistral": Architecture({**DECODER, "model_type": "mistral", "sliding_window": 11}, "causal"),
    "gemma3_text": Architecture(
        {**DECODER, **LOCAL, "model_type": "gemma3_text", "use_bidirectional_attention": True}, "bidirectional"
    ),
    "gemma3_text causal": Architecture({**DECODER, **LOCAL, "model_type": "gemma3_text"}, "causal"),
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

    def __str__(self) -> str:
        return f"{self.precision}, packed" if self.packed else self.precision


class Checks:
    """Prints the result of each check, and counts the failures."""

    def __init__(self) -> None:
        self.failures = 0

    def report(self, what: str, details: str, *, good: bool = True) -> None:
        """Print the result of one check."""
        if not good:
            self.failures += 1
        print(f"{'ok  ' if good else 'FAIL'}  {what:<34} {details}", flush=True)


@click.command(help=__doc__)
@click.option("--device", type=click.Choice(("cpu", "cuda")), default="cuda", show_default=True)
@click.option(
    "--architecture",
    "chosen",
    multiple=True,
    type=click.Choice(tuple(ARCHITECTURES)),
    help="Check only this; repeatable.",
)
@click.option("--seconds", type=float, default=60.0, show_default=True, help="How long memory is watched.")
def main(*, device: Device, chosen: tuple[str, ...], seconds: float) -> None:
    checks = Checks()
    with tempfile.TemporaryDirectory() as scratch:
        for name in chosen or ARCHITECTURES:
            _check(checks, name, device, Path(scratch) / name.replace(" ", "-"))
        _watch_memory(checks, device, seconds, Path(scratch) / "memory")
    print(f"{checks.failures} failures on {device}", flush=True)
    sys.exit(checks.failures > 0)


def _check(checks: Checks, name: str, device: str, work: Path) -> None:
    """All graphs of one architecture."""
    architecture = ARCHITECTURES[name]
    checkpoint, causal = work / "checkpoint", architecture.attention == "causal"
    pooling = "lasttoken" if causal else "mean"
    write_checkpoint(checkpoint, architecture.config, limit=LIMIT, pooling=pooling, std=0.1)
    options = ["--max-length", str(LIMIT)]
    if architecture.attention:
        options += ["--attention", architecture.attention]
    export_artifact(checkpoint, work / "padded", *options, "--precision", ",".join(PRECISIONS))
    forms = [Form(work / "padded", precision) for precision in PRECISIONS]
    if architecture.packable:
        export_artifact(checkpoint, work / "packed", *options, "--precision", "fp32,fp16", "--packed")
        forms += [Form(work / "packed", "fp32", packed=True), Form(work / "packed", "fp16", packed=True)]
    texts = [text(random.Random(number), sentences) for number, sentences in enumerate(SENTENCES)]
    with OnnxEmbedder(work / "padded", precision="fp32", providers="cpu") as model:
        expected = model.encode(texts)
    for form in forms:
        what = f"{name}, {form}"
        if device == "cpu" and (form.packed or form.precision in CUDA_ONLY):
            print(f"      {what:<34} not on a CPU", flush=True)
        elif device == "cuda" and causal and form.precision == "fp32":
            _check_refusal(checks, what, form, device)
        else:
            _check_form(checks, what, form, device, texts=texts, expected=expected)


def _check_refusal(checks: Checks, what: str, form: Form, device: str) -> None:
    """A graph whose attention CUDA has no kernels for must not open."""
    try:
        OnnxEmbedder(form.folder, precision=form.precision, providers=device).close()
    except OnnxEmbedError as error:
        checks.report(
            what, f"refused, as it should be: ...{str(error)[-140:]}", good="GroupQueryAttention" in str(error)
        )
    else:
        checks.report(what, "opened, though CUDA has no kernels for its attention", good=False)


def _check_form(
    checks: Checks, what: str, form: Form, device: str, *, texts: Sequence[str], expected: np.ndarray[Any, Any]
) -> None:
    try:
        with OnnxEmbedder(form.folder, precision=form.precision, providers=device) as model:
            among = agreement(model.encode(texts), expected)
            alone = agreement(np.stack([model.encode(single) for single in texts]), expected)
            feeds = _batches(form, model.tokenize(texts), model.manifest.tokenization.pad_token_id.value)
        ran, kernels = _profile(form, device, feeds)
    except Exception as error:  # of any kind; the other architectures are checked all the same
        checks.report(what, f"{type(error).__name__}: {str(error)[:300]}", good=False)
        return
    least = min(among, alone)
    misplaced = {name: count for (provider, name), count in ran.items() if provider != device}
    copies = sum(count for (_, name), count in ran.items() if name.startswith("Memcpy"))
    details = (
        f"least cosine {among:.6f} together, {alone:.6f} alone; {copies} copies; attention by {kernels or 'unnamed'}"
    )
    if misplaced:
        details += f"; on another provider: {misplaced}"
    checks.report(what, details, good=least >= FLOORS[form.precision] and not misplaced)


def _batches(form: Form, texts: Sequence[Tokens], pad_token_id: int) -> list[Feeds]:
    """The inputs of a run of a single text, and of a run of several texts with padding."""
    batches: list[Feeds] = [pad(group, pad_token_id) for group in (texts[-2:-1], texts[:4])]
    return [pack(feeds) for feeds in batches] if form.packed else batches


def _profile(form: Form, device: str, batches: Sequence[Feeds]) -> tuple[Counter[tuple[str, str]], str]:
    """How often each operator that computes numbers ran on each device, and the attention kernels that were used.

    Operators without float outputs compute shapes and masks: ONNX Runtime runs them on the CPU by its own choice.
    """
    runtime = load_onnxruntime()
    options = runtime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(form.folder / "profile")
    providers = wanted_providers(device).providers
    with _printed() as lines:
        session = runtime.InferenceSession(
            str(form.path),
            options,
            providers=[name for name, _ in providers],
            provider_options=[values for _, values in providers],
        )
        names = [value.name for value in session.get_inputs()]
        for batch in batches:
            session.run(["sentence_embedding"], {name: batch[name] for name in names})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ran: Counter[tuple[str, str]] = Counter()
    for event in events:
        details = event.get("args", {})
        if event.get("cat") != "Node" or "provider" not in details:
            continue
        floats = any("float" in dtype for output in details.get("output_type_shape", []) for dtype in output)
        if details["op_name"] != "If" and (floats or details["op_name"].startswith("Memcpy")):
            ran["cuda" if details["provider"] == CUDA else "cpu", details["op_name"]] += 1
    kernels = sorted({re.split(r"\W", line.rpartition("SdpaKernel=")[2])[0] for line in lines() if "Sdpa" in line})
    return ran, ", ".join(kernels)


@contextmanager
def _printed() -> Iterator[Callable[[], list[str]]]:
    """The lines that libraries print, which name the kernels that attention uses; they can be read afterwards."""
    os.environ["ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"] = "1"
    sys.stdout.flush()
    saved = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        lines: list[str] = []
        try:
            yield lambda: lines
        finally:
            os.dup2(saved, 1)
            os.close(saved)
            del os.environ["ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"]
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


def _watch_memory(checks: Checks, device: Device, seconds: float, work: Path) -> None:
    """Embed texts of random lengths; the memory of the last quarter of the time is compared with the first half's."""
    config = {**COMMON, "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6}
    write_checkpoint(work / "checkpoint", config, limit=LIMIT, pooling="mean")
    for packed in (False, True) if device == "cuda" else (False,):
        folder = work / f"artifact-{packed}"
        export_artifact(work / "checkpoint", folder, "--precision", "fp16", *(["--packed"] if packed else []))
        points: list[tuple[float, float]] = []
        chance = random.Random(0)
        with OnnxEmbedder(folder, precision="fp16", providers=device) as model:
            start = time.monotonic()
            while (at := time.monotonic() - start) < seconds:
                texts = [text(chance, chance.choice((1, 1, 2, 3, 5, 20, 60))) for _ in range(chance.randint(1, 200))]
                model.encode(texts)
                points.append((at / seconds, (gpu_memory(device) or resident()) / 1e6))
        first_half = max((used for at, used in points if at < 0.5), default=0.0)
        last_quarter = max((used for at, used in points if at >= 0.75), default=first_half)
        checks.report(
            f"memory, {Form(folder, 'fp16', packed)}, {seconds:g} s",
            f"at most {first_half:,.0f} MB in the first half, {last_quarter:,.0f} MB in the last quarter",
            good=last_quarter <= GROWTH * first_half,
        )


if __name__ == "__main__":
    main()

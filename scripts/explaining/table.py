"""How often `onnxembed explain` names a cause that was injected through transformers, as a table.

Every single cause, and random pairs of them, are injected for all-MiniLM-L6-v2 (if its checkpoint is there) and for a
tiny random model of every architecture. A verdict is right if it names the injected causes and no others, wrong if it
names something else, and otherwise unexplained. Causes that only round are one band, and must be reported as such.
A cause that changes none of the vectors must not be named.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from explaining.checkpoints import FAMILIES, write_tiny
from explaining.reference import NotApplicableError, Reference, Vectors
from onnxembed import OnnxEmbedder
from onnxembed.explain import Report, explain
from onnxembed.export.pipeline import export
from tiny import WORDS

MINILM = Path(__file__).parents[2] / "models" / "all-MiniLM-L6-v2"

BAND = "band"
"""The expected answer for causes that only round."""


INTEGERS, FORMAT = "integers", "number format"
"""The expected answer for integer weights and activations, and the verdict's name for it."""

BIDIRECTIONAL = {"gemma3_text": ("use_bidirectional_attention", True)}
"""The key of the config that lets tokens see later ones, where it is not is_causal."""


@dataclass(frozen=True)
class Cause:
    """What is injected: options of `Reference.vectors`, and the name that the verdict must give it."""

    name: str
    expected: str | None
    """None: it must stay unexplained."""
    how: Mapping[str, Any]

    @property
    def only_rounds(self) -> bool:
        """Whether it is a number format; a change that moves nothing else still changes how that rounds."""
        return self.expected in (BAND, INTEGERS)


def causes(own: Reference) -> Iterator[Cause]:
    """Every single cause; some do not apply to a model."""
    yield Cause("no normalization", "normalization", {"normalize": False})
    for pooling in ("cls", "mean", "max", "lasttoken", "weightedmean"):
        if pooling != own.pooling:
            yield Cause(f"{pooling} pooling", "pooling", {"pooling": pooling})
    yield Cause("specials not pooled", "special tokens in the pooling", {"specials_out": True})
    yield Cause("padding pooled", "padding", {"padding": "right", "all_slots": True})
    yield Cause("padding attended", "padding", {"padding": "right", "unmasked": True})
    yield Cause("no mask at all", "padding", {"padding": "right", "unmasked": True, "all_slots": True})
    yield Cause("padding on the left", "padding", {"padding": "left"})
    if own.decoder:
        key, value = BIDIRECTIONAL.get(own.config.model_type, ("is_causal", False))
        yield Cause("bidirectional", "attention", {"config": {key: value}})
    else:
        yield Cause("causal", "attention", {"causal": True})
    if own.prompt:
        yield Cause("no prompt", "prompt", {"prompt": ""})
        yield Cause("prompt twice", "prompt", {"prompt": own.prompt * 2})
        yield Cause("another prompt", "prompt", {"prompt": own.prompts["title"]})
        yield Cause("prompt not pooled", "prompt in the pooling", {"prompt_out": True})
    else:
        yield Cause("prompt query", "prompt", {"prompt": "query: "})
    for dropped in ("first", "last", "all", "doubled"):
        yield Cause(f"special tokens {dropped}", "special tokens", {"dropped": dropped})
    short, odd = (128, 77) if own.length > 100 else (11, 13)
    yield Cause(f"cut to {short}", "truncation", {"length": short})
    yield Cause(f"cut to {odd}", "truncation", {"length": odd})
    yield Cause("not cut", "truncation", {"length": 512 if own.length > 100 else 60})
    yield Cause("cut at the start", "truncation side", {"side": "left"})
    yield Cause("case kept", "case", {"normalizer": {"lowercase": False}})
    yield Cause("accents kept", "tokenizer", {"normalizer": {"strip_accents": False}})
    yield Cause("Chinese not split", "tokenizer", {"normalizer": {"handle_chinese_chars": False}})
    for name, offset in (("positions from 2", 2), ("positions from 0", 0)):
        from_padding = own.config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet")
        if from_padding is (offset == 0):
            yield Cause(name, "positions", {"offset": offset})
    yield Cause("token type 1", "token types", {"types": True})
    yield Cause("no Dense", "layers after the pooling", {"no_dense": True})
    yield Cause("cut to half, scaled again", "dimensions", {"cut": "scaled"})
    yield Cause("cut to half", "dimensions+normalization", {"cut": "only"})
    yield from _of_config(own)
    yield Cause("fp16 weights", BAND, {"precision": "fp16"})
    yield Cause("bf16", BAND, {"precision": "bf16"})
    yield Cause("dynamic int8", INTEGERS, {"precision": "int8"})
    yield Cause("three times as long", "scale", {"scale": 3.0})
    yield Cause("rows permuted", "order", {"order": True})
    yield Cause("another vocabulary", None, {"other_vocabulary": True})
    yield Cause("another model", None, {"other_model": True})


def _of_config(own: Reference) -> Iterator[Cause]:
    for key in ("hidden_act", "hidden_activation", "activation"):
        if getattr(own.config, key, None) == "gelu":
            yield Cause("GELU with tanh", "activation", {"config": {key: "gelu_new"}})
            break
        if getattr(own.config, key, None) == "gelu_pytorch_tanh" and key != "hidden_act":
            yield Cause("GELU with erf", "activation", {"config": {key: "gelu"}})
            break
    parameters = getattr(own.config, "rope_parameters", None)
    yield from _of_windows(own.config)
    if parameters:
        full = "full_attention" in parameters
        own_values = parameters["full_attention"] if full else parameters
        for name, values in (("rope theta", {"rope_theta": _other(own_values)}), ("rope scaling", {"factor": 4.0})):
            scaled = {**own_values, **values, "rope_type": "linear" if "factor" in values else "default"}
            changed = {**parameters, "full_attention": scaled} if full else scaled
            yield Cause(name, "rotary positions", {"config": {"rope_parameters": changed}})


def _of_windows(config: Any) -> Iterator[Cause]:
    key = "local_attention" if hasattr(config, "local_attention") else "sliding_window"
    own, types = getattr(config, key, None), getattr(config, "layer_types", None)
    if own is None:
        return
    for name, value in (
        ("no window", 4096),
        ("half the window", own // 2),
        ("a wider window", own + (2 if key == "local_attention" else 1)),
    ):
        yield Cause(name, "attention window", {"config": {key: value}})
    if types and "full_attention" in types:
        yield Cause(
            "global layers alone", "attention window", {"config": {"layer_types": ["full_attention"] * len(types)}}
        )
        yield Cause("other global layers", "attention window", {"config": {"layer_types": [*types[1:], types[0]]}})
        local = config.rope_parameters.get("sliding_attention")
        if local:
            one = {"full_attention": local, "sliding_attention": local}
            yield Cause("one rope theta", "rotary positions", {"config": {"rope_parameters": one}})


def _other(parameters: Mapping[str, Any]) -> float:
    return 500_000.0 if parameters["rope_theta"] == 10_000.0 else 10_000.0


def tiny_texts() -> list[str]:
    """20 texts of 3 to 50 tokens, some with capital letters, accents and Chinese."""
    rng = random.Random(5)
    texts = [" ".join(rng.choices(WORDS, k=count)) for count in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 30, 45)]
    return [*texts, "The CAT is On it", "a B c D", "b\N{LATIN SMALL LETTER E WITH ACUTE} to", "the \u6771\u4eac of"]


def real_texts() -> list[str]:
    """20 texts of a few to 700 tokens."""
    sentence = "The quick brown fox jumps over the lazy dog while the old river keeps its own slow counsel. "
    short = [
        "Hello",
        "apple pie",
        "A cat sat on the mat.",
        "What is the capital of France?",
        "NASA launched ITS new telescope",
        "caf\N{LATIN SMALL LETTER E WITH ACUTE} au lait",
        "\u6771\u4eac\u90fd is Tokyo",
        "the stock market fell sharply today",
        "how do I bake bread at home without an oven",
    ]
    return [*short, *(sentence * count + str(count) for count in (1, 2, 3, 4, 5, 6, 8, 10, 14, 20, 32))]


def vectors_of(own: Reference, texts: Sequence[str], how: Mapping[str, Any]) -> Vectors | None:
    """The reference's vectors; None if it cannot make them."""
    try:
        return own.vectors(texts, **how)
    except (NotApplicableError, IndexError, ValueError, TypeError, RuntimeError, AttributeError):
        return None


def same(a: Vectors, b: Vectors) -> bool:
    """Whether nobody could tell them apart."""
    return a.shape == b.shape and float(np.abs(a - b).max()) < 1e-6


def graded(report: Report, expected: Sequence[str | None]) -> str:
    """right, band, wrong or unexplained; what is wrong about a verdict is that it names another cause."""
    names = {cause.name for cause in report.causes}
    wanted = {part for name in expected if name and name != BAND for part in name.split("+")}
    if report.band and expected:
        rounding = {BAND, INTEGERS} & {*expected}
        return "band" if rounding and names == {FORMAT} | (wanted - {INTEGERS}) else "wrong"
    if not report.explained:
        return "right" if None in expected else "unexplained"
    if None in expected:
        return "wrong"
    if INTEGERS in wanted or FORMAT in names:
        return "right" if names - {FORMAT} == wanted - {INTEGERS} and {BAND, INTEGERS} & {*expected} else "wrong"
    if names == wanted:
        return "band" if BAND in expected else "right"
    told = any({*other.causes} == wanted for other in report.alternatives)
    # A change that only rounds in this model is in the band, whatever it is called.
    rounded = "activation" in wanted and names == wanted - {"activation"}
    return "right" if told else "band" if rounded else "wrong"


def injections(own: Reference, texts: Sequence[str], pairs: int) -> Iterator[tuple[str, list[str | None], Vectors]]:
    """What is injected, in words; what the verdict must name; and the vectors."""
    base = own.vectors(texts)
    singles = list(causes(own))
    made: dict[str, Vectors] = {}
    for cause in singles:
        vectors = vectors_of(own, texts, cause.how)
        if vectors is not None:
            made[cause.name] = vectors
            yield cause.name, [] if same(vectors, base) else [cause.expected], vectors
    usable = [cause for cause in singles if cause.name in made and cause.expected is not None]
    rng = random.Random(1)
    done = 0
    while done < pairs:
        first, second = rng.sample(usable, 2)
        if first.expected == second.expected or set(first.how) & set(second.how):
            continue
        vectors = vectors_of(own, texts, {**first.how, **second.how})
        if vectors is None:
            continue
        done += 1
        seen = [
            cause.expected
            for cause, other in ((first, second), (second, first))
            if not same(vectors, made[other.name]) and not (other.only_rounds and same(made[cause.name], base))
        ]
        yield f"{first.name} + {second.name}", [] if same(vectors, base) else seen, vectors


@dataclass
class Results:
    """What has been measured, a JSON object in each line of a file; a run that was stopped goes on behind it."""

    file: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path, again: Container[str]) -> Results:
        """The rows of a file, but those of some grades, which are measured again."""
        lines = file.read_text().splitlines() if file.is_file() else []
        rows = [json.loads(line) for line in lines]
        kept = [row for row in rows if row["grade"] not in again]
        if len(kept) < len(rows):
            file.write_text("".join(json.dumps(row) + "\n" for row in kept))
        return cls(file, kept)

    def has(self, model: str, cause: str) -> bool:
        """Whether a cause was injected into a model."""
        return any((row["model"], row["cause"]) == (model, cause) for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row, in the file at once."""
        self.rows.append(row)
        with self.file.open("a") as out:
            out.write(json.dumps(row) + "\n")


def measure(name: str, work: Path, pairs: int, results: Results) -> None:
    """Every injection into one model that was not made before, with its grade and seconds."""
    if name == "minilm":
        folder, texts = MINILM, real_texts()
    else:
        folder = write_tiny(work / "checkpoint", name.partition("+")[0], dense="+" in name)
        texts = tiny_texts()
    export(folder, work / "artifact")
    with OnnxEmbedder(work / "artifact", providers="cpu") as model:
        for cause, expected, vectors in injections(Reference(folder), texts, pairs):
            if results.has(name, cause):
                continue
            started = time.process_time()
            report = explain(model, texts, vectors)
            seconds = round(time.process_time() - started, 2)
            grade = graded(report, expected)
            row = {"model": name, "cause": cause, "grade": grade, "seconds": seconds, "verdict": report.verdict}
            results.add(row)
            print(f"  {grade:<12}{seconds:6.1f} s  {name}: {cause}: {report.verdict[:150]}", flush=True)


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join((*FAMILIES, "bert+dense", "minilm")), help="which, by name")
    parser.add_argument("--pairs", type=int, default=30, help="random pairs of causes for each model")
    parser.add_argument("--results", type=Path, default=Path("explain_table.jsonl"), help="the file of all results")
    parser.add_argument("--again", default="", help="grades to measure again, such as wrong,unexplained")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results = Results.read(arguments.results, arguments.again.split(","))
    models = arguments.models.split(",")
    for name in models:
        with tempfile.TemporaryDirectory() as temporary:
            measure(name, Path(temporary), arguments.pairs, results)
    for name in models:
        _print(name, [row for row in results.rows if row["model"] == name])
    _print("all", [row for row in results.rows if row["model"] in models])


def _print(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    for kind in ("singles", "pairs"):
        chosen = [row for row in rows if (" + " in row["cause"]) is (kind == "pairs")]
        counts = Counter(row["grade"] for row in chosen)
        if chosen:
            good = 100 * (counts["right"] + counts["band"]) / len(chosen)
            slowest = max(row["seconds"] for row in chosen)
            words = "  ".join(f"{grade} {counts[grade]}" for grade in ("right", "band", "wrong", "unexplained"))
            print(f"{name:<20}{kind:<8}{words}  = {good:.0f} %  slowest {slowest:.1f} CPU seconds", flush=True)


if __name__ == "__main__":
    main()

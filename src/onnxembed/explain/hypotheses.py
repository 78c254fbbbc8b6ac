"""What another system may do otherwise, as data: one list for a model, made from its manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxembed.explain.builds import builds
from onnxembed.explain.setup import Dropped, Hypothesis, Over, Setup
from onnxembed.manifest import Manifest, PoolingMode

POOLINGS: dict[PoolingMode, str] = {
    "cls": "the first token (CLS)",
    "mean": "the mean of the tokens",
    "lasttoken": "the last token",
    "max": "the maximum over the tokens",
    "weightedmean": "the mean of the tokens weighted by their place",
    "mean_sqrt_len": "the sum of the tokens by the root of their number",
}
"""The poolings in words."""

LENGTHS = (32, 64, 128, 256, 384, 512, 1024, 2048, 4096, 8192)
"""Limits that systems and files often have, in tokens."""

PREFIXES = ("query: ", "passage: ")
"""Prompts that people try with any model, because E5 has them."""

# Which special tokens may be missing, in words.
_DROPPED: dict[Dropped, str] = {
    "last": "leave out the special token at the end of each text (EOS or SEP)",
    "first": "leave out the special token at the start of each text (BOS or CLS)",
    "all": "leave out all special tokens",
    "doubled": "have the special token at the end of each text twice",
}

# padding, over, and what they mean together.
_PADDINGS = (
    ("masked", "slots", "count padding in the pooling"),
    ("attended", "tokens", "let tokens attend to padding"),
    ("attended", "slots", "use no attention mask: padding is attended to and pooled"),
    ("left", "tokens", "pad on the left, which moves the positions of the tokens"),
    ("left", "slots", "pad on the left and pool the padding, too"),
)


@dataclass(frozen=True)
class Traits:
    """What else decides which changes are possible."""

    config: Mapping[str, Any]
    """config.json."""
    dimension: int | None
    """The length of their vectors, if a cut could explain it."""
    layers: Sequence[str]
    """The kinds of layers after the pooling that can be left out."""
    words: Sequence[str]
    """The other ways to split texts into words."""


def hypotheses(manifest: Manifest, setup: Setup, traits: Traits) -> list[Hypothesis]:
    """All single changes to the model's own setup, those that cost least first."""
    return [
        *_cuts(traits.dimension),
        *_poolings(manifest, setup, traits.layers),
        *_prompts(manifest, setup),
        *_special_tokens(),
        *(truncated(setup, length) for length in LENGTHS),
        other_side(setup),
        *_cases(),
        *_words(traits.words),
        *(_types() if "token_type_ids" in manifest.model.inputs else ()),
        *builds(manifest, traits.config),
        *_paddings(manifest),
    ]


def truncated(setup: Setup, length: int) -> Hypothesis:
    """Texts cut to another length."""
    return Hypothesis(
        "truncation",
        f"cut texts to {length} tokens",
        f"cut them to {setup.inputs.max_length}",
        inputs={"max_length": length},
        words={"length": str(setup.inputs.max_length)},
    )


def other_side(setup: Setup) -> Hypothesis:
    """Texts cut at their other end."""
    kept, other = ("start", "end") if setup.inputs.side == "right" else ("end", "start")
    return Hypothesis(
        "truncation side",
        f"keep the {other} of a text that is too long",
        f"keep its {kept}",
        inputs={"side": "left" if setup.inputs.side == "right" else "right"},
        words={"side": setup.inputs.side, "capital": setup.inputs.side.capitalize()},
    )


def _cuts(dimension: int | None) -> Iterator[Hypothesis]:
    if dimension is not None:
        yield Hypothesis(
            "dimensions",
            f"are cut to their first {dimension} numbers",
            "are whole",
            pooled={"dimensions": dimension},
            words={"dimensions": "none"},
        )


def _poolings(manifest: Manifest, setup: Setup, layers: Sequence[str]) -> Iterator[Hypothesis]:
    section = manifest.require_embedding()
    own = section.pooling.value
    ours = f"use {_in_words(own)} ({section.pooling.reason})"
    for mode, words in POOLINGS.items():
        if (mode,) != own:
            yield Hypothesis(
                "pooling", f"use {words}", ours, pooled={"pooling": (mode,)}, words={"pooling": "+".join(own)}
            )
    overs: dict[Over, str] = {"words": "the special tokens"}
    if setup.inputs.prompt:
        overs["text"] = "the prompt"
    for over, left in overs.items():
        theirs = f"leave {left} out of the pooling"
        yield Hypothesis(f"{left.removeprefix('the ')} in the pooling", theirs, "pool them too", pooled={"over": over})
    kinds = [(kind,) for kind in layers] + ([tuple(layers)] if len(layers) > 1 else [])
    for kind in kinds:
        theirs = f"are made without the {' and '.join(kind)} layers after the pooling"
        yield Hypothesis("layers after the pooling", theirs, "go through them", pooled={"left_out": kind})


def _words(words: Sequence[str]) -> Iterator[Hypothesis]:
    for each in words:
        yield Hypothesis("tokenizer", each, "are split as tokenizer.json says", inputs={"words": each})


def _in_words(modes: Sequence[PoolingMode]) -> str:
    return " and ".join(POOLINGS[mode] for mode in modes)


def _prompts(manifest: Manifest, setup: Setup) -> Iterator[Hypothesis]:
    own = setup.inputs.prompt
    ours = f"have {own!r} before each text" if own else "have no prompt"
    words = {"prompt": own}
    if own:
        yield Hypothesis("prompt", "have no prompt", ours, inputs={"prompt": ""}, words=words)
        yield Hypothesis("prompt", "have the prompt twice", ours, inputs={"prompt": own + own}, words=words)
    texts = dict.fromkeys((*manifest.prompts.texts.value.values(), *PREFIXES))
    for text in texts:
        if text and text != own:
            theirs = f"have {text!r} before each text"
            yield Hypothesis("prompt", theirs, ours, inputs={"prompt": text}, words=words)


def _special_tokens() -> Iterator[Hypothesis]:
    for dropped, theirs in _DROPPED.items():
        yield Hypothesis("special tokens", theirs, "have them", inputs={"dropped": dropped})


def _cases() -> Iterator[Hypothesis]:
    yield Hypothesis("case", "lower-case the texts", "keep capital letters", inputs={"case": "lower"})
    yield Hypothesis(
        "case", "keep capital letters", "lower-case the texts, as tokenizer.json says", inputs={"case": "kept"}
    )


def _types() -> Iterator[Hypothesis]:
    yield Hypothesis(
        "token types", "give every token the type 1", "have the types of the tokenizer", inputs={"type_id": 1}
    )


def _paddings(manifest: Manifest) -> Iterator[Hypothesis]:
    causal = manifest.model.attention.value == "causal" and manifest.model.engine == "build"
    for padding, over, theirs in _PADDINGS:
        pooled = {} if over == "tokens" else {"over": over}
        build = {"masked": True} if causal and pooled and padding != "attended" else {}
        yield Hypothesis("padding", theirs, "ignore padding", inputs={"padding": padding}, pooled=pooled, build=build)

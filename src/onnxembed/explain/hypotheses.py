"""What another system may do otherwise, as data: one list for a model, made from its manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnxembed.explain.setup import Hypothesis, Setup
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
_DROPPED = {
    "last": "leave out the special token at the end of each text (EOS or SEP)",
    "first": "leave out the special token at the start of each text (BOS or CLS)",
    "all": "leave out all special tokens",
}

# padding, over, and what they mean together.
_PADDINGS = (
    ("masked", "slots", "count padding in the pooling"),
    ("attended", "tokens", "let tokens attend to padding"),
    ("attended", "slots", "use no attention mask: padding is attended to and pooled"),
    ("left", "tokens", "pad on the left, which moves the positions of the tokens"),
    ("left", "slots", "pad on the left and pool the padding, too"),
)


def hypotheses(manifest: Manifest, setup: Setup, *, types: bool, dimension: int | None) -> list[Hypothesis]:
    """All single changes to the model's own setup.

    `types`: whether the graph takes token types. `dimension`: the length of their vectors, if a cut could explain it.
    """
    return [
        *_cuts(setup, dimension),
        *_poolings(manifest),
        *_prompts(manifest, setup),
        *_special_tokens(),
        *(truncated(setup, length) for length in LENGTHS),
        _side(setup),
        *_cases(),
        *(_types() if types else ()),
        *_paddings(),
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


def _side(setup: Setup) -> Hypothesis:
    kept, other = ("start", "end") if setup.inputs.side == "right" else ("end", "start")
    return Hypothesis(
        "truncation side",
        f"keep the {other} of a text that is too long",
        f"keep its {kept}",
        inputs={"side": "left" if setup.inputs.side == "right" else "right"},
        words={"side": setup.inputs.side},
    )


def _cuts(setup: Setup, dimension: int | None) -> Iterator[Hypothesis]:
    if dimension is not None:
        yield Hypothesis(
            "dimensions",
            f"are cut to their first {dimension} numbers",
            "are whole",
            pooled={"dimensions": dimension},
            words={"dimensions": "none"},
        )


def _poolings(manifest: Manifest) -> Iterator[Hypothesis]:
    section = manifest.require_embedding()
    own = section.pooling.value
    ours = f"use {_in_words(own)} ({section.pooling.reason})"
    for mode, words in POOLINGS.items():
        if (mode,) != own:
            yield Hypothesis(
                "pooling", f"use {words}", ours, pooled={"pooling": (mode,)}, words={"pooling": "+".join(own)}
            )
    yield Hypothesis(
        "special tokens in the pooling",
        "leave the special tokens out of the pooling",
        "pool them as well",
        pooled={"over": "words"},
    )
    if section.dense:
        yield Hypothesis("dense", "are made without the Dense layers", "go through them", pooled={"dense": False})


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


def _paddings() -> Iterator[Hypothesis]:
    for padding, over, theirs in _PADDINGS:
        pooled = {} if over == "tokens" else {"over": over}
        yield Hypothesis("padding", theirs, "ignore padding", inputs={"padding": padding}, pooled=pooled)

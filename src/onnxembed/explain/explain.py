"""`explain`: name the cause of a difference between two systems' vectors, by reproducing theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from onnxembed.arrays import Array, row_cosines
from onnxembed.counting import counted
from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.explain.analysis import AnalysisGraphs
from onnxembed.explain.builds import first_position
from onnxembed.explain.candidates import Candidate, Scale, best, noise
from onnxembed.explain.formats import Agreement
from onnxembed.explain.given import Given, checked
from onnxembed.explain.hypotheses import Traits, hypotheses
from onnxembed.explain.replay import Replay, check_tokens
from onnxembed.explain.report import Report, Row, Tried, causes_of, sentence, untested_lines
from onnxembed.explain.search import Search
from onnxembed.explain.setup import Hypothesis, Inputs, Pooled, Setup

# What a report shows of a text: characters, and tokens.
_CHARACTERS, _PIECES = 300, 40

# The rest of the closest tries is noise that helps nobody; JSON has these.
_TRIED = 20


def explain(
    model: OnnxEmbedder,
    texts: Sequence[str],
    vectors: Array,
    *,
    prompt: str | None = None,
    prompt_name: str | None = None,
    system: str | None = None,
) -> Report:
    """Why somebody else's vectors of these texts are not the model's own.

    Each hypothesis is a change to how the model makes vectors. It is named only if the changed vectors have a cosine
    of at least 0.9999 with theirs in every row, or as a band, if theirs move as rounding to a number format moves
    vectors. Nothing is concluded from how large a difference is.

    Args:
        model: the model as it should be, best in fp32.
        texts: at least three texts, some of them long and some with capital letters: each shows other causes.
        vectors: their vectors [N, D], in the order of the texts.
        prompt, prompt_name: the prompt that the texts should have, as for `OnnxEmbedder.embed`.
        system: the other system as the fixes name it, such as "FastEmbed"; None shows the fixes of all.

    Raises:
        UsageError: vectors that cannot belong to the texts, too few usable rows, or a model without dense vectors.
    """
    section = model.manifest.require_embedding()
    if section.prompt_left_out and _prompt(model, prompt, prompt_name):
        raise UsageError(
            f"this model does not pool the tokens of a prompt ({section.prompt_left_out.reason}), which explain does "
            "not replay: give it vectors of texts without a prompt, and prompt=''"
        )
    given = checked(texts, vectors)
    size = given.vectors.shape[1]
    setup = Setup(
        Inputs(
            _prompt(model, prompt, prompt_name),
            model.max_length,
            model.manifest.tokenization.truncation_side.value,
        ),
        Pooled(section.pooling.value),
    )
    with closing(AnalysisGraphs(model)) as graphs:
        replay = Replay(model, given.texts, setup.pooled, graphs)
        check_tokens(replay, model, given.texts, setup.inputs)
        scale: Scale = "unit" if section.normalize.value else "none"
        search = Search(replay, setup, given.vectors, given.everything, scale, _lengths(model, replay, graphs.config))
        traits = Traits(
            graphs.config,
            size if size < section.dimension else None,
            replay.kinds_of_layers,
            tuple(replay.word_variants),
        )
        tried = hypotheses(model.manifest, setup, traits)
        found = search.run(tried)
        band = None if found or not search.candidates else search.round_off(tried)
        found = found or best(search.candidates)
    if not search.candidates:
        raise UsageError(
            f"their vectors have {size} numbers, and nothing in this model makes vectors of that length from "
            f"{section.dimension}: they are of another model"
        )
    return _report(search, found, given, setup, band=None if found else band, system=system)


def _prompt(model: OnnxEmbedder, prompt: str | None, name: str | None) -> str:
    """The prompt to use: the given one, else the default; no warning without one, which is a hypothesis."""
    default = model.default_prompt_name
    if prompt is None and name is None:
        return model.prompts[default] if default else ""
    if name is not None and name not in model.prompts:
        raise UsageError(f"this model has no prompt named {name!r}; it has: {', '.join(model.prompts) or 'none'}")
    if prompt is not None and name is not None:
        raise UsageError("give prompt or prompt_name, not both")
    return prompt if prompt is not None else model.prompts[str(name)]


def _lengths(model: OnnxEmbedder, replay: Replay, config: Mapping[str, Any]) -> range:
    """The limits that the graph can take: above the special tokens, up to its positions as config.json has them."""
    positions = config.get("max_position_embeddings")
    first = first_position(model.manifest, config)
    most = positions - first if isinstance(positions, int) else model.max_length
    return range(replay.specials + 1, max(most, model.max_length) + 1)


Band = tuple[Candidate, Agreement]


def _report(
    search: Search, found: list[Candidate], given: Given, setup: Setup, *, band: Band | None, system: str | None
) -> Report:
    """The report of a search, whether it found a cause, a band or neither."""
    tried = sorted(search.candidates, key=lambda each: each.error)
    chosen = found[0] if found else band[0] if band else tried[0]
    own = search.replay.tokenize(setup.inputs)
    tokens = [len(text.ids) for text in own]
    explained = bool(found) and chosen.norms_fit and chosen.is_noise
    everything = sorted((*tried, *search.rejected), key=lambda each: each.error)
    singles = [each for each in everything if len(each.changes) == 1 and not each.accepted]
    others = [each for each in everything if each not in found and not _contains(each, chosen)]
    return Report(
        verdict=_unusable(given) + (_verdict(chosen, found) if band is None else _band(*band)),
        explained=explained,
        same=explained and not chosen.changes and not given.unusable,
        band=band is not None,
        causes=causes_of(chosen.changes, system) if found or band else (),
        measure="cosine",
        rows=tuple(_rows(search, given, chosen)),
        alternatives=tuple(map(_tried, found[1:])),
        runner_up=_tried(others[0]) if found and others else None,
        ruled_out=tuple(map(_tried, singles[:_TRIED])),
        unseen=_words([*search.unseen, *search.rounding]),
        untested=tuple(untested_lines(search.untested)),
        notes=(*given.notes, *_cut_note(tokens, setup)),
    )


def _rows(search: Search, given: Given, chosen: Candidate) -> Iterator[Row]:
    """One row for each text, with what both systems have made of it."""
    ours = search.own
    alike = ours.shape == given.vectors.shape
    plain = row_cosines(ours, given.vectors).tolist() if alike else [None] * len(given.texts)
    norms = zip(np.linalg.norm(ours, axis=1).tolist(), np.linalg.norm(given.vectors, axis=1).tolist(), strict=True)
    own = search.replay.tokenize(search.setup.inputs)
    for place, (text, norm) in enumerate(zip(own, norms, strict=True)):
        yield Row(
            int(given.places[place]),
            len(text.ids),
            plain[place],
            float(chosen.cosines[place]),
            given.texts[place][:_CHARACTERS],
            norm,
            tuple(search.replay.pieces(text.ids[:_PIECES])),
        )


def _verdict(chosen: Candidate, found: list[Candidate]) -> str:
    reached = f"the smallest cosine is {chosen.cosines.min():.7f}"
    if not found:
        return (
            f"Unexplained. Best partial match: if their vectors {chosen.words}, the smallest cosine is "
            f"{chosen.cosines.min():.6f} and the mean {chosen.cosines.mean():.6f}, and {int(chosen.exact.sum())} of "
            f"{len(chosen.cosines)} rows fit. That is no cause: it may be another model, or something not tried here."
        )
    if not chosen.is_noise:
        worst = int(np.argmin(chosen.cosines))
        said = sentence(chosen.changes, "vectors") or "The vectors are nearly the same."
        return (
            f"{said} Something is left unexplained: some texts fit to {1 - np.median(chosen.cosines):.1e}, others only "
            f"to {chosen.error:.1e} (text {worst} of those below). Rounding would show in all of them."
        )
    if not chosen.norms_fit:
        said = sentence(chosen.changes, "vectors") or "The directions are the same."
        return f"{said} Their lengths are unexplained: no known scale gives them ({reached})."
    if not chosen.changes:
        return f"The vectors are the same: {reached}, and {noise(chosen.error)}."
    return f"{sentence(chosen.changes, 'vectors')} With this, {reached}; {noise(chosen.error)}."


def _unusable(given: Given) -> str:
    """What is said first where some of their vectors are none."""
    if not given.unusable:
        return ""
    return f"{counted(given.unusable, 'vector')} of theirs cannot be used (NaN, infinity or zero). Of the others: "


def _band(chosen: Candidate, agreed: Agreement) -> str:
    return (
        f"{sentence(chosen.changes, 'vectors')} How they round cannot be given back (the smallest cosine is "
        f"{chosen.cosines.min():.6f}), but their vectors differ from exact ones in the directions in which "
        f"it moves them: agreement {agreed.mean:.2f} on average and {agreed.least:.2f} at least, where 0 is chance."
    )


def _contains(other: Candidate, chosen: Candidate) -> bool:
    return {*map(id, chosen.changes)} <= {*map(id, other.changes)} and bool(chosen.changes)


def _tried(each: Candidate) -> Tried:
    return Tried(each.words, float(each.cosines.min()), tuple(change.cause for change in each.changes))


def _words(changes: Sequence[Hypothesis]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(change.theirs for change in changes))


def _cut_note(tokens: Sequence[int], setup: Setup) -> list[str]:
    limit = setup.inputs.max_length
    full = int((np.array(tokens) >= limit).sum())
    reach = "reaches" if full == 1 else "reach"
    return [f"{counted(full, 'text')} {reach} the limit of {limit} tokens; longer ones are cut"] if full else []

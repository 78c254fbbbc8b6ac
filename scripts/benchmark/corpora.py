"""The named corpora: short queries, mixed paragraphs, long documents. The same arguments give the same texts.

From SciFact (BEIR layout: corpus.jsonl, queries.jsonl) and STS-B (.csv) in a data folder, or made up.
All texts of a corpus differ, because onnxembed computes equal ones once.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmark import made_up
from benchmark.tasks import jsonl

COUNTS = {"queries": 512, "paragraphs": 256, "documents": 48}
RERANKED = 1000

PARAGRAPH = (1, 1, 1, 2, 2, 3, 5, 8, 13)
"""Numbers of sentences of a paragraph: short ones are as frequent as in real use."""

DOCUMENT = (20, 60)
"""Fewest and most sentences of a long document."""

BOOKS, BOOK = 8, (500, 600)
"""How many texts longer than any limit, and their fewest and most sentences."""


@dataclass(frozen=True)
class Corpus:
    """Texts, where they come from, and for reranking the query they are ranked for."""

    texts: list[str]
    source: str
    query: str | None = None


Sentences = Callable[[random.Random, int], str]
"""So many sentences that follow each other."""


def corpora(data: Path | None, *, scale: float = 1.0, seed: int = 0, books: bool = False) -> dict[str, Corpus]:
    """The three corpora; `scale` makes them smaller or larger. With `books` a fourth, of texts cut at every limit."""
    counts = {name: max(2, round(count * scale)) for name, count in COUNTS.items()}
    queries, sentences, source = _sources(data)
    chance = random.Random(seed)
    found = {
        "queries": Corpus(distinct(lambda: queries(chance), counts["queries"]), source),
        "paragraphs": Corpus(paragraphs(sentences, chance, counts["paragraphs"]), source),
        "documents": Corpus(_of_length(sentences, chance, DOCUMENT, counts["documents"]), source),
    }
    return found | ({"books": Corpus(_of_length(sentences, chance, BOOK, BOOKS), source)} if books else {})


def reranking(data: Path | None, *, scale: float = 1.0, seed: int = 0) -> dict[str, Corpus]:
    """One query and the paragraphs to rank for it."""
    queries, sentences, source = _sources(data)
    chance = random.Random(seed)
    texts = paragraphs(sentences, chance, max(2, round(RERANKED * scale)))
    return {"rerank": Corpus(texts, source, queries(chance))}


def held_back(data: Path | None, count: int) -> Corpus:
    """Paragraphs for comparing precisions, of another seed than the corpora's."""
    _, sentences, source = _sources(data)
    return Corpus(paragraphs(sentences, random.Random("held back"), count), source)


def paragraphs(sentences: Sentences, chance: random.Random, count: int) -> list[str]:
    """Texts of very mixed length."""
    return distinct(lambda: sentences(chance, chance.choice(PARAGRAPH)), count)


def _of_length(sentences: Sentences, chance: random.Random, length: tuple[int, int], count: int) -> list[str]:
    """Texts of so many sentences at least and at most."""
    return distinct(lambda: sentences(chance, chance.randint(*length)), count)


def distinct(draw: Callable[[], str], count: int) -> list[str]:
    """So many different texts, in the order they were drawn."""
    texts: dict[str, None] = {}
    for _ in range(100 * count):
        texts[draw()] = None
        if len(texts) == count:
            return list(texts)
    raise ValueError(f"the data have only {len(texts)} different texts of this kind, not {count}")


def _sources(data: Path | None) -> tuple[Callable[[random.Random], str], Sentences, str]:
    """Where queries and running sentences come from, and what to call it."""
    if data is None:
        return made_up.sentence, made_up.text, "made-up words"
    queries = [row["text"] for row in jsonl(data / "scifact/queries.jsonl")]
    with (data / "stsb/stsb-en-test.csv").open(newline="", encoding="utf-8") as file:
        queries += [row[0] for row in csv.reader(file)]
    # Sentences in the order of the abstracts: some that follow each other run on into the next abstract.
    every = [
        f"{sentence.strip(' .')}."
        for row in jsonl(data / "scifact/corpus.jsonl")
        for sentence in row["text"].split(". ")
        if sentence.strip(" .")
    ]

    def sentences(chance: random.Random, count: int) -> str:
        start = chance.randrange(len(every) - count)
        return " ".join(every[start : start + count])

    return (lambda chance: chance.choice(queries)), sentences, "SciFact and STS-B"

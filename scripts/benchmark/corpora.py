"""The named corpora: short queries, mixed paragraphs, long documents. The same arguments give the same texts.

They come from SciFact (BEIR layout: corpus.jsonl, queries.jsonl) and STS-B (.csv) in a data folder, or are made up.
All texts of a corpus are different, because onnxembed computes equal texts once.
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
"""Sentences per paragraph; short paragraphs are as frequent as in real use."""

DOCUMENT = (20, 60)
"""The minimum and maximum number of sentences in a long document."""

BOOKS, BOOK = 8, (500, 600)
"""How many texts are longer than any limit, and the minimum and maximum number of their sentences."""


@dataclass(frozen=True)
class Corpus:
    """Texts, their source and, for reranking, the query they are ranked for."""

    texts: list[str]
    source: str
    query: str | None = None


Sentences = Callable[[random.Random, int], str]
"""Returns a number of consecutive sentences."""


def corpora(data: Path | None, *, scale: float = 1.0, seed: int = 0, books: bool = False) -> dict[str, Corpus]:
    """The three corpora, their size multiplied by `scale`; with `books`, also texts that are longer than any limit."""
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
    """Paragraphs for comparing precisions, with another seed than the corpora."""
    _, sentences, source = _sources(data)
    return Corpus(paragraphs(sentences, random.Random("held back"), count), source)


def paragraphs(sentences: Sentences, chance: random.Random, count: int) -> list[str]:
    """Texts of very different lengths."""
    return distinct(lambda: sentences(chance, chance.choice(PARAGRAPH)), count)


def _of_length(sentences: Sentences, chance: random.Random, length: tuple[int, int], count: int) -> list[str]:
    """Texts with a number of sentences in this range."""
    return distinct(lambda: sentences(chance, chance.randint(*length)), count)


def distinct(draw: Callable[[], str], count: int) -> list[str]:
    """`count` different texts, in the order they were drawn."""
    texts: dict[str, None] = {}
    for _ in range(100 * count):
        texts[draw()] = None
        if len(texts) == count:
            return list(texts)
    raise ValueError(f"the data have only {len(texts)} different texts of this kind, not {count}")


def _sources(data: Path | None) -> tuple[Callable[[random.Random], str], Sentences, str]:
    """Queries, a source of consecutive sentences, and its name."""
    if data is None:
        return made_up.sentence, made_up.text, "made-up words"
    queries = [row["text"] for row in jsonl(data / "scifact/queries.jsonl")]
    with (data / "stsb/stsb-en-test.csv").open(newline="", encoding="utf-8") as file:
        queries += [row[0] for row in csv.reader(file)]
    # Abstracts are joined, so some consecutive sentences run on into the next abstract.
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

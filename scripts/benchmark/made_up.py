"""Made-up texts, for streams of any length and for machines without data files. Standard library only."""

from __future__ import annotations

import random
from collections.abc import Iterator

WORDS = """
    river stone harbour winter signal carpet engine letter garden copper market shadow summer valley window bridge
    doctor planet silver basket candle desert island forest ticket hammer kitchen library mountain orchard painter
    quarter railway school teacher village weather journey machine notebook opinion pattern question reason surface
    treaty union voyage wheel yard apple bread cloud dream earth field glass house idea journal knife light moon night
    carries follows measures opens reaches covers changes builds describes finds keeps loses moves needs offers paints
    repairs sells teaches uses visits watches writes grows holds joins learns makes names orders plays reads sends
    slow bright early quiet narrow heavy distant simple common warm broken careful empty famous gentle honest large
    modern northern open public recent small tall useful young the the the the a a a of of of in in and and to to with
    on for from by under over near after before because while although when where this that every another its their
""".split()  # noqa: SIM905  (a word list)

SENTENCE = (4, 24)
"""The minimum and maximum number of words in a sentence."""

SENTENCE_COUNTS = {"short": (1, 1), "long": (80, 160)}
"""The minimum and maximum number of sentences in a text of each kind."""


def texts(kind: str, count: int, seed: int = 0) -> Iterator[str]:
    """`count` texts of a kind, practically all different; the same seed gives the same texts."""
    chance = random.Random(f"{kind} {seed}")
    return (text(chance, chance.randint(*SENTENCE_COUNTS[kind])) for _ in range(count))


def text(chance: random.Random, sentences: int) -> str:
    """A text of `sentences` sentences."""
    return " ".join(sentence(chance) for _ in range(sentences))


def sentence(chance: random.Random) -> str:
    """Random words with a capital letter and a full stop."""
    return " ".join(chance.choices(WORDS, k=chance.randint(*SENTENCE))).capitalize() + "."

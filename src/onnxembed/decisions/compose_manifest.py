"""Decisions -> a manifest: the one place where the sections are put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Literal, Protocol

from onnxembed.decisions.encoder import EncoderDecisions
from onnxembed.facts.multi_vector import MultiVectorFacts
from onnxembed.facts.sparse import SparseFacts
from onnxembed.manifest import (
    FORMAT_VERSION,
    TASKS,
    Decision,
    FileRecord,
    Manifest,
    Model,
    MultiVector,
    QueryExpansion,
    Source,
    Sparse,
    Task,
    Tokenization,
    Variant,
)


class TokenLookup(Protocol):
    """The ids of a tokenizer's tokens; `onnxembed.tokenizer.token_ids` has it."""

    def token(self, text: str) -> int:
        """The id of a token; ModelFilesError if the tokenizer lacks it."""

    def special(self, *keys: str) -> int:
        """The id of the first of these special tokens (`cls_token`, ...) that the tokenizer has."""

    def known(self, words: Iterable[str]) -> tuple[int, ...]:
        """The ids of those words that are tokens by themselves, in ascending order."""


def tokenization_section(encoder: EncoderDecisions, changes: tuple[str, ...]) -> Tokenization:
    """The manifest's section about the tokenizer, whose files were changed as `changes` say in words."""
    return Tokenization(encoder.max_length, encoder.truncation_side, encoder.pad_token_id, changes)


def prompt_left_out(
    include_prompt: Decision[bool], special: Iterable[str], ids: TokenLookup
) -> Decision[tuple[int, ...]]:
    """What the manifest says of a pooling that leaves out the prompt; `special` are the tokenizer's special tokens."""
    return Decision(ids.known(special), include_prompt.origin, include_prompt.reason)


def sparse_section(
    head: SparseFacts, ids: TokenLookup, dimension: int, aggregated_by: Literal["graph", "runtime"]
) -> Sparse:
    """The manifest's section about sparse embeddings; dropped tokens get their ids."""
    dropped = head.dropped_tokens
    return Sparse(
        activation=head.activation,
        aggregation=head.aggregation,
        aggregated_by=aggregated_by,
        dropped_token_ids=Decision(tuple(sorted(map(ids.special, dropped.value))), dropped.origin, dropped.reason),
        dimension=dimension,
    )


def multi_vector_section(
    head: MultiVectorFacts, ids: TokenLookup, encoder: EncoderDecisions, dimension: int
) -> MultiVector:
    """The manifest's section about multi-vector embeddings; tokens get their ids."""
    limit, expansion, words = encoder.max_length, head.query_expansion, head.skipped_words
    expanded: Decision[QueryExpansion | None] = Decision(None, expansion.origin, expansion.reason)
    if (by_name := expansion.value) is not None:
        token = ids.special("mask_token", "eos_token") if by_name.token is None else ids.token(by_name.token)
        expanded = replace(expanded, value=QueryExpansion(token, by_name.length, by_name.attended, by_name.longer))
    return MultiVector(
        normalize=head.normalize,
        first_token=head.first_token,
        query_length=head.query_length,
        document_length=Decision(None, "flag", limit.reason) if limit.origin == "flag" else head.document_length,
        query_expansion=expanded,
        skipped_token_ids=Decision(ids.known(words.value), words.origin, words.reason),
        skipped_in=head.skipped_in,
        dimension=dimension,
    )


def compose_manifest(
    *,
    packages: Iterable[str],
    source: Source,
    model: Model,
    tokenization: Tokenization,
    encoder: EncoderDecisions,
    sections: Mapping[Task, Any],
    variants: Mapping[str, Variant],
    files: dict[str, FileRecord],
) -> Manifest:
    """The manifest of an artifact that has not been verified.

    `packages`: distributions that took part, whose versions are recorded. `sections`: one for each task.
    """
    return Manifest(
        format_version=FORMAT_VERSION,
        created_with={name: version(name) for name in packages},
        source=source,
        tasks=tuple(task for task in TASKS if task in sections),
        model=model,
        tokenization=tokenization,
        prompts=encoder.prompts,
        variants=dict(variants),
        files=files,
        verification={},
        embedding=sections.get("embedding"),
        sparse=sections.get("sparse"),
        multi_vector=sections.get("multi_vector"),
        reranking=sections.get("reranking"),
    )

"""Pairs of a query and a document -> token ids, without padding: joined by the tokenizer, or put into a template."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxembed.counting import counted
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.foreign_errors import foreign_errors
from onnxembed.manifest import Manifest, PairTruncation, Template
from onnxembed.tokenizer.texts import TextTokenizer, Tokens

Pair = tuple[str, str]
PLACEHOLDERS = re.compile(r"\{(query|document|instruction)\}")


class PairTokenizer(TextTokenizer):
    """Joins each pair as the tokenizer's post-processor says, in at most `max_length` tokens.

    `truncation` "longest_first" shortens the longer of the two, "only_second" only the document.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        max_length: int,
        truncation: PairTruncation,
        *,
        changed: str | None = None,
    ) -> None:
        super().__init__(folder, manifest.tokenization, max_length, changed)
        self._truncation = truncation
        self._token_types = manifest.require_reranking().token_types.value
        self._room = max_length - self._tokenizer.num_special_tokens_to_add(True)
        if self._room <= 0:
            raise UsageError(f"max_length is {max_length}, which the special tokens of a pair fill")
        side = manifest.tokenization.truncation_side.value
        self._tokenizer.enable_truncation(max_length, strategy=truncation, direction=side)

    def tokenize(self, texts: Sequence[Any]) -> list[Tokens]:
        """Token ids of each pair (query, document), in order."""
        try:
            tokens = super().tokenize(texts)
        except ModelFilesError as error:
            if self._truncation == "only_second" and (problem := self._too_long(texts)):
                raise UsageError(problem) from error
            raise
        if self._token_types:
            return tokens
        return [replace(pair, type_ids=np.zeros_like(pair.type_ids)) for pair in tokens]

    def _too_long(self, pairs: Sequence[Pair]) -> str:
        """The message for a query that leaves its document no room, if only the document may be cut; "" if all do."""
        whole = self.whole()
        with foreign_errors(f"{self._file} cannot tokenize these texts"):
            lengths = {query: len(whole.encode(query, add_special_tokens=False).ids) for query, _ in pairs}
        longest = max(lengths, key=lambda query: lengths[query])
        if lengths[longest] < self._room:
            return ""
        return (
            f"the query {longest[:40]!r} has {counted(lengths[longest], 'token')}, but query and document together "
            f"must fit into {self._room}: shorten it, raise max_length, or use truncation longest_first"
        )


class TemplateTokenizer(TextTokenizer):
    """Puts each pair into a template. Only the body is cut; the prefix and the suffix around it stay whole."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        max_length: int,
        template: Template,
        *,
        instruction: str | None = None,
        changed: str | None = None,
    ) -> None:
        super().__init__(folder, manifest.tokenization, max_length, changed)
        self._parts = PLACEHOLDERS.split(template.body)
        self._instruction = template.instruction if instruction is None else instruction
        self._tokenizer.no_truncation()
        self._prefix, self._suffix = (
            np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int64)
            for text in (template.prefix, template.suffix)
        )
        room = max_length - len(self._prefix) - len(self._suffix)
        if room <= self._tokenizer.num_special_tokens_to_add(False):
            raise UsageError(f"max_length is {max_length}, which this model's template fills")
        self._tokenizer.enable_truncation(room, direction=manifest.tokenization.truncation_side.value)

    def tokenize(self, texts: Sequence[Any]) -> list[Tokens]:
        """Token ids of each pair (query, document), in order."""
        return [self._surround(body) for body in super().tokenize([self._body(*pair) for pair in texts])]

    def _body(self, query: str, document: str) -> str:
        values = {"query": query, "document": document, "instruction": self._instruction or ""}
        # Every second part is a placeholder's name. Placeholders inside a text are not replaced.
        return "".join(values[part] if index % 2 else part for index, part in enumerate(self._parts))

    def _surround(self, body: Tokens) -> Tokens:
        ids = np.concatenate([self._prefix, body.ids, self._suffix])
        return Tokens(ids=ids, type_ids=np.zeros_like(ids), truncated=body.truncated)

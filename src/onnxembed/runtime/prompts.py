"""Which prompt goes before a text: the caller's, a named one, or the one for queries or documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from onnxembed.arguments import check_text
from onnxembed.errors import UsageError
from onnxembed.manifest import TextKind
from onnxembed.warning import Once

PROMPTS_OF_KIND: Mapping[TextKind, tuple[str, ...]] = {
    "query": ("query",),
    # The order in the documentation of sentence-transformers. Its release 6.2 adds an empty "document" prompt to
    # every model, and so never reaches the other two; a model that has one of them means it for its documents.
    "document": ("document", "passage", "corpus"),
}
"""The names of the prompts for each kind of text; the first one that a model has is used."""


@dataclass(frozen=True)
class Prompting:
    """The prompts of a model. Safe to use from many threads."""

    texts: Mapping[str, str]
    default: str | None
    """The name of the prompt that is used when the caller names none."""
    _unprompted_warning: Once = field(default_factory=Once)

    def with_own(self, prompts: Mapping[str, str] | None, default: str | None) -> Prompting:
        """The same with prompts and a default of the caller's, which win over the model's, as in sentence-transformers.

        Raises UsageError for a prompt that is no text, and for a default that names no prompt.
        """
        own = {check_text(name, "a prompt's name"): check_text(text, name) for name, text in (prompts or {}).items()}
        texts = {**self.texts, **own}
        if default is not None and check_text(default, "default_prompt_name") not in texts:
            raise UsageError(f"default_prompt_name is {default!r}; the prompts are: {', '.join(texts) or 'none'}")
        return Prompting(texts, self.default if default is None else default)

    def of_kind(self, kind: TextKind) -> str:
        """The model's prompt for texts of this kind, or "".

        The default prompt is never used: as in sentence-transformers, it is for texts of unknown kind.
        """
        return next((self.texts[name] for name in PROMPTS_OF_KIND[kind] if name in self.texts), "")

    def choose(self, prompt: str | None, name: str | None, kind: TextKind | None = None) -> str:
        """The prompt that the caller gives or names; otherwise that of the kind, or the model's default, or "".

        Raises UsageError for both at once, and for a name that the model does not have.
        """
        if prompt is not None:
            if name is not None:
                raise UsageError("give prompt or prompt_name, not both")
            return check_text(prompt, "prompt")
        if name is None and kind is not None:
            return self.of_kind(kind)
        if name is None:
            name = self.default
            if name is None:
                if self._expected:
                    self._unprompted_warning.warn(self._expected)
                return ""
        if check_text(name, "prompt_name") not in self.texts:
            names = ", ".join(self.texts) or "none"
            raise UsageError(f"this model has no prompt named {name!r}; it has: {names}")
        return self.texts[name]

    @cached_property
    def _expected(self) -> str:
        """What to say to a call without a prompt: the model has one for queries and for documents, or "" if not."""
        names = [[name for name in names if self.texts.get(name)] for names in PROMPTS_OF_KIND.values()]
        if not all(names):
            return ""
        prompts = ", ".join(f"{name}: {self.texts[name]!r}" for name, *_ in names)
        return (
            f"this model expects a prompt before every text ({prompts}): "
            "query_embed, encode_query, passage_embed and encode_document add it, as does "
            'prompt_name (--prompt-name); prompt="" means none (shown once)'
        )

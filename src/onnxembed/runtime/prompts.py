"""Which prompt goes before a text: the caller's, a named one, or the one for queries or documents."""

from __future__ import annotations

from collections.abc import Mapping

from onnxembed.arguments import check_text
from onnxembed.errors import UsageError
from onnxembed.manifest import Prompts, TextKind
from onnxembed.warning import Once

PROMPTS_OF_KIND: Mapping[TextKind, tuple[str, ...]] = {
    "query": ("query",),
    # The order in the documentation of sentence-transformers. Its release 6.2 adds an empty "document" prompt to
    # every model, and so never reaches the other two; a model that has one of them means it for its documents.
    "document": ("document", "passage", "corpus"),
}
"""The names of the prompts for each kind of text; the first one that a model has is used."""


class Prompting:
    """The prompts of a model. Safe to use from many threads."""

    def __init__(self, prompts: Prompts) -> None:
        self._texts, self._default = prompts.texts.value, prompts.default.value
        self._unprompted_warning = Once()

    def of_kind(self, kind: TextKind) -> str:
        """The model's prompt for texts of this kind, or "".

        The default prompt is never used: as in sentence-transformers, it is for texts of unknown kind.
        """
        return next((self._texts[name] for name in PROMPTS_OF_KIND[kind] if name in self._texts), "")

    def choose(self, prompt: str | None, name: str | None) -> str:
        """The prompt that the caller gives or names; otherwise the model's default, or "".

        Raises UsageError for both at once, and for a name that the model does not have.
        """
        if prompt is not None:
            if name is not None:
                raise UsageError("give prompt or prompt_name, not both")
            return check_text(prompt, "prompt")
        if name is None:
            name = self._default
            if name is None:
                self._warn_unprompted()
                return ""
        if check_text(name, "prompt_name") not in self._texts:
            names = ", ".join(self._texts) or "none"
            raise UsageError(f"this model has no prompt named {name!r}; it has: {names}")
        return self._texts[name]

    def _warn_unprompted(self) -> None:
        """Warn once if the model expects a prompt: it has one for queries and for documents, and no default."""
        names = [[name for name in names if self._texts.get(name)] for names in PROMPTS_OF_KIND.values()]
        if all(names):
            prompts = ", ".join(f"{name}: {self._texts[name]!r}" for name, *_ in names)
            self._unprompted_warning.warn(
                f"this model expects a prompt before every text ({prompts}): "
                "query_embed, encode_query, passage_embed and encode_document add it, as does "
                'prompt_name (--prompt-name); prompt="" means none (shown once)'
            )

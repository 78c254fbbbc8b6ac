"""Which tokenizer an artifact's items need: one for texts, one for pairs, or one that puts pairs into a template."""

from __future__ import annotations

from onnxembed.errors import UsageError
from onnxembed.loading.located import LocatedArtifact
from onnxembed.manifest import PairTruncation
from onnxembed.runtime.open_model import make_text_tokenizer
from onnxembed.tokenizer.pairs import PairTokenizer, TemplateTokenizer
from onnxembed.tokenizer.texts import TextTokenizer


def make_tokenizer(located: LocatedArtifact, max_length: int) -> TextTokenizer:
    """The artifact's own tokenizer, of texts or of pairs."""
    make = make_pair_tokenizer if located.manifest.reranking else make_text_tokenizer
    return make(located, max_length)


def make_pair_tokenizer(
    located: LocatedArtifact,
    max_length: int,
    *,
    truncation: PairTruncation | None = None,
    instruction: str | None = None,
) -> TextTokenizer:
    """The tokenizer of a reranker's pairs; UsageError for options that it does not have."""
    reranking = located.manifest.require_reranking()
    template = reranking.template.value if reranking.template else None
    if instruction is not None and (template is None or template.instruction is None):
        raise UsageError("this model does not take an instruction")
    if template is None:
        chosen = truncation or reranking.truncation.value
        return PairTokenizer(located.files.folder, located.manifest, max_length, chosen, changed=located.tokenizer)
    if truncation == "only_second":
        raise UsageError("this model puts pairs into a template and cuts its body; only_second is not possible")
    return TemplateTokenizer(
        located.files.folder,
        located.manifest,
        max_length,
        template,
        instruction=instruction,
        changed=located.tokenizer,
    )

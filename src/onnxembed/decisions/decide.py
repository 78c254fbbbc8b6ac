"""Facts, recipe and flags -> everything that is decided about a model, each decision with its origin.

A flag wins over the files. The files win over the recipe, which states what they leave out. The recipe wins
over the architecture's default. If none of them states it, an error names the flag to pass. Attention is
the exception: the recipe comes before the files, because published files have stated the opposite of what a
model was trained with.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnxembed.decisions.choose_task import choose_task
from onnxembed.decisions.embedding import EmbeddingDecisions, decide_embedding
from onnxembed.decisions.encoder import EncoderDecisions, decide_encoder
from onnxembed.decisions.flags import Flags
from onnxembed.decisions.multi_vector import decide_multi_vector, own_multi_vector
from onnxembed.decisions.reranking import decide_reranking
from onnxembed.decisions.sparse import decide_sparse, own_sparse
from onnxembed.facts.facts import Facts
from onnxembed.facts.multi_vector import MultiVectorFacts
from onnxembed.facts.sparse import SparseFacts
from onnxembed.manifest import Reranking
from onnxembed.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What is decided about a model: its encoder, and one part for each task that it does.

    The heads of sparse and multi-vector embeddings are given as facts, which name tokens: their ids are known only
    once the tokenizer is written.
    """

    encoder: EncoderDecisions
    embedding: EmbeddingDecisions | None = None
    sparse: SparseFacts | None = None
    multi_vector: MultiVectorFacts | None = None
    reranking: Reranking | None = None


def decide(facts: Facts, flags: Flags | None = None, recipe: Recipe | None = None) -> Decisions:
    """Choose the model's task and decide all that the task needs.

    Raises ModelFilesError if the files are invalid or contradict each other, UnsaidError if neither files nor recipe
    nor flags state what is needed, UsageError if flags contradict the model, UnsupportedError if onnxembed does not
    support what the model needs.
    """
    flags = flags or Flags()
    task = choose_task(facts, flags, recipe).value
    encoder = decide_encoder(facts, flags, recipe)
    if task == "reranking":
        return Decisions(encoder=encoder, reranking=decide_reranking(facts, flags, recipe))
    if task == "sparse":
        return Decisions(encoder=encoder, sparse=decide_sparse(facts, flags))
    if task == "multi_vector":
        return Decisions(encoder=encoder, multi_vector=decide_multi_vector(facts, flags))
    return Decisions(
        encoder=encoder,
        embedding=decide_embedding(facts, encoder, flags, recipe),
        sparse=own_sparse(facts, flags),
        multi_vector=own_multi_vector(facts, flags),
    )

"""onnxembed.json: the contract between export and runtime. Standard library only.

The runtime reads nothing else to know how to embed. The format is closed: a key that this version
does not know, a missing key and a newer format version are errors, because guessing about any of them
could silently change vectors. Every decision says where it came from.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TypeVar

from onnxembed.errors import ManifestError, UsageError
from onnxembed.manifest.decoding import decode
from onnxembed.manifest.sections import (
    Embedding,
    FileRecord,
    Model,
    MultiVector,
    Prompts,
    Reranking,
    Source,
    Sparse,
    Template,
    Tokenization,
    Variant,
    Verification,
)
from onnxembed.manifest.words import (
    CUDA_ONLY,
    FILE_NAME,
    FORMAT_VERSION,
    INPUTS,
    METHODS,
    TASKS,
    TOKENIZER_FILE,
    Task,
)

Section = TypeVar("Section")


@dataclass(frozen=True)
class Manifest:
    """The whole of onnxembed.json."""

    format_version: int
    created_with: dict[str, str]
    source: Source
    tasks: tuple[Task, ...]
    model: Model
    tokenization: Tokenization
    prompts: Prompts
    variants: dict[str, Variant]
    files: dict[str, FileRecord]
    verification: dict[str, Verification]
    embedding: Embedding | None = None
    sparse: Sparse | None = None
    multi_vector: MultiVector | None = None
    reranking: Reranking | None = None

    def to_json(self) -> str:
        """The text of onnxembed.json: stable key order, UTF-8, final newline."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def require_embedding(self) -> Embedding:
        """The section `embedding`; UsageError for a model that makes no sentence embeddings."""
        return self._required("embedding", self.embedding)

    def require_sparse(self) -> Sparse:
        """The section `sparse`; UsageError for a model that makes no sparse embeddings."""
        return self._required("sparse", self.sparse)

    def require_multi_vector(self) -> MultiVector:
        """The section `multi_vector`; UsageError for a model that makes no multi-vector embeddings."""
        return self._required("multi_vector", self.multi_vector)

    def require_reranking(self) -> Reranking:
        """The section `reranking`; UsageError for a model that is not a reranker."""
        return self._required("reranking", self.reranking)

    def _required(self, task: Task, section: Section | None) -> Section:
        if section is None:
            raise UsageError(f"this model is made for {self.abilities()}, not for {task}")
        return section

    def abilities(self) -> str:
        """The model's tasks, each with the API that does it, for error messages."""
        return " and ".join(f"{task} ({METHODS[task]})" for task in self.tasks)

    def files_read(self, precision: str, *, packed: bool) -> dict[str, tuple[str, ...]]:
        """The files that the runtime reads for the graph of `precision`, by the section that names them.

        With `packed` they include the graph's packed form, if it has one.
        """
        variant = self.variant(precision)
        read: dict[str, tuple[str | None, ...]] = {
            "tokenization": (TOKENIZER_FILE,),
            f"variants.{precision}": (variant.file, variant.data),
        }
        if packed and variant.packed:
            read[f"variants.{precision}.packed"] = (variant.packed.file,)
        for index, layer in enumerate(self.embedding.dense if self.embedding else ()):
            read[f"embedding.dense[{index}]"] = (layer.weight, layer.bias)
        return {section: tuple(name for name in names if name) for section, names in read.items()}

    @property
    def on_cpu(self) -> tuple[str, ...]:
        """The precisions whose graphs a CPU can run, and so verify."""
        return tuple(name for name in self.variants if name not in CUDA_ONLY)

    def variant(self, precision: str) -> Variant:
        """The graph of `precision`, or an error that lists what the artifact has."""
        try:
            return self.variants[precision]
        except KeyError:
            have = ", ".join(self.variants)
            raise UsageError(
                f"this artifact has no {precision} graph (it has: {have}); export it again with --precision {precision}"
            ) from None


def read_manifest(folder: Path) -> Manifest:
    """Read onnxembed.json of an artifact folder.

    Raises ManifestError when it is absent, not JSON, of another format version, or not exactly of the
    known shape (all problems of one file are listed at once).
    """
    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ManifestError(
            f"{folder} has no {FILE_NAME}: it is not an onnxembed artifact; make one with onnxembed export"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read {path} ({error}); export the model again") from error
    return parse_manifest(text, where=str(path))


def parse_manifest(text: str, where: str = FILE_NAME) -> Manifest:
    """Parse the text of an onnxembed.json; see `read_manifest` for the errors."""
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{where} is not valid JSON ({error}); export the model again") from None
    if not isinstance(data, dict):
        raise ManifestError(f"{where} holds {type(data).__name__}, not an object; export the model again")
    version = data.get("format_version")
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        cure = "upgrade onnxembed" if newer else "export the model again"
        raise ManifestError(
            f"{where} has format_version {version!r}; this onnxembed reads version {FORMAT_VERSION}: {cure}"
        )
    problems: list[str] = []
    manifest: Manifest = decode(Manifest, data, "", problems)
    problems = problems or list(_contradictions(manifest))
    if problems:
        raise ManifestError(
            f"{where} is not a format {FORMAT_VERSION} manifest: {'; '.join(problems)}. Export the model again"
        )
    return manifest


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """What the types cannot express: every file that is read is recorded, and lies inside the folder."""
    if not manifest.variants:
        yield "variants is empty"
    if not manifest.tasks:
        yield "tasks is empty"
    for task in TASKS:
        if (task in manifest.tasks) is not (getattr(manifest, task, None) is not None):
            yield f"tasks is {', '.join(manifest.tasks)}, which does not go with the section {task}"
    if manifest.reranking and manifest.reranking.template:
        yield from (f"reranking.template: {flaw}" for flaw in template_flaws(manifest.reranking.template.value))
    for name in manifest.model.inputs:
        if name not in INPUTS:
            yield f"model.inputs has {name!r}, not one of {', '.join(INPUTS)}"
    for name in manifest.files:
        path = PureWindowsPath(name)  # the stricter of the systems: it knows drives and both slashes
        if path.anchor or ".." in path.parts:
            yield f"files names {name!r}, which leads out of the folder"
    read: dict[str, tuple[str, ...]] = {}
    for precision in manifest.variants:
        read |= manifest.files_read(precision, packed=True)
    for where, names in read.items():
        yield from (f"{where} reads {name!r}, which files lacks" for name in names if name not in manifest.files)


def template_flaws(template: Template) -> Iterator[str]:
    """The problems of a template, in words: each placeholder must occur once, in the body."""
    wanted = {"{query}": 1, "{document}": 1, "{instruction}": 0 if template.instruction is None else 1}
    for placeholder, count in wanted.items():
        occurrences = template.body.count(placeholder)
        if occurrences != count:
            yield f"body has {placeholder} {occurrences} times, not {'once' if count else 'without an instruction'}"
        if placeholder in template.prefix or placeholder in template.suffix:
            yield f"{placeholder} stands outside of body"

"""Reading onnxembed.json, the contract between export and runtime; `sections` has its fields. Standard library only.

The runtime reads nothing else to know how to embed. The format is closed: a key that this version
does not know, a missing key and a newer format version are errors, because guessing about any of them
could silently change vectors. Every decision says where it came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

from onnxembed.errors import ManifestError
from onnxembed.manifest.decoding import decode
from onnxembed.manifest.sections import FileRecord, Manifest, Template
from onnxembed.manifest.words import FILE_NAME, FORMAT_VERSION, INPUTS, PROOF_FILE, TASKS, TOKENIZER_FILE

_LARGEST = 2**31 - 1  # sizes and token ids beyond it overflow in the libraries that get them


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


def choose_graph(
    folder: Path, precision: str, *, packed: bool, cpu: bool = False
) -> tuple[Manifest, str, dict[str, FileRecord]]:
    """Read the manifest of an artifact folder and choose a graph: "auto" is fp32 if there is one, else the first.

    A `cpu` computes bf16 from the fp32 graph, if there is one: it has no kernels for graphs of bf16.

    Returns the manifest, the graph's precision, and by name the records of the files that the runtime reads for it;
    with `packed` they include the graph's packed form. Raises UsageError for a precision that the artifact does not
    have, and the errors of `read_manifest`.
    """
    manifest = read_manifest(folder)
    if precision == "auto":
        precision = "fp32" if "fp32" in manifest.variants else next(iter(manifest.variants))
    if cpu and precision == "bf16" and "fp32" in manifest.variants:
        precision = "fp32"
    if precision not in manifest.variants:
        manifest.variant(precision)  # raises
    read = _files_read(manifest, precision, packed=packed)
    return manifest, precision, {file: manifest.files[file] for names in read.values() for file in names}


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
    yield from _impossible_numbers(manifest)
    for name in manifest.model.inputs:
        if name not in INPUTS:
            yield f"model.inputs has {name!r}, not one of {', '.join(INPUTS)}"
    for name in manifest.files:
        path = PureWindowsPath(name)  # the stricter of the systems: it knows drives and both slashes
        if path.anchor or ".." in path.parts:
            yield f"files names {name!r}, which leads out of the folder"
    read: dict[str, tuple[str, ...]] = {}
    for precision in manifest.variants:
        read |= _files_read(manifest, precision, packed=True)
    for where, names in read.items():
        yield from (f"{where} reads {name!r}, which files lacks" for name in names if name not in manifest.files)


def _files_read(manifest: Manifest, precision: str, *, packed: bool) -> dict[str, tuple[str, ...]]:
    """The files that the runtime reads for the graph of `precision`, by the section that names them."""
    variant = manifest.variants[precision]
    read: dict[str, tuple[str | None, ...]] = {
        "tokenization": (TOKENIZER_FILE,),
        f"variants.{precision}": (variant.file, variant.data),
        "proof": (PROOF_FILE if PROOF_FILE in manifest.files else None,),
    }
    if packed and variant.packed:
        read[f"variants.{precision}.packed"] = (variant.packed.file,)
    for index, layer in enumerate(manifest.embedding.dense if manifest.embedding else ()):
        read[f"embedding.dense[{index}]"] = (layer.weight, layer.bias)
    return {section: tuple(name for name in names if name) for section, names in read.items()}


def _impossible_numbers(manifest: Manifest) -> Iterator[str]:
    """Sizes and ids that no model has; what is believed here would be found later, as an error of another library."""
    tokenization, embedding = manifest.tokenization, manifest.embedding
    sparse, vectors = manifest.sparse, manifest.multi_vector
    sizes: dict[str, int | None] = {"tokenization.max_length": tokenization.max_length.value}
    ids = {"tokenization.pad_token_id": [tokenization.pad_token_id.value]}
    if embedding:
        sizes["embedding.dimension"] = embedding.dimension
        sizes["embedding.pooling (its length)"] = len(embedding.pooling.value)
        if left_out := embedding.prompt_left_out:
            ids["embedding.prompt_left_out"] = [*left_out.value]
            if embedding.pooled_by == "graph":
                yield "embedding.prompt_left_out is for what the runtime pools, but embedding.pooled_by is 'graph'"
        for index, layer in enumerate(embedding.dense):
            sizes[f"embedding.dense[{index}].in_features"] = layer.in_features
            sizes[f"embedding.dense[{index}].out_features"] = layer.out_features
        if embedding.dense and embedding.dense[-1].out_features != embedding.dimension:
            yield f"embedding.dimension is {embedding.dimension}, not the last layer's out_features"
    if sparse:
        sizes["sparse.dimension"] = sparse.dimension
        ids["sparse.dropped_token_ids"] = [*sparse.dropped_token_ids.value]
    if vectors:
        sizes["multi_vector.dimension"] = vectors.dimension
        sizes["multi_vector.query_length"] = vectors.query_length.value
        sizes["multi_vector.document_length"] = vectors.document_length.value
        ids["multi_vector.skipped_token_ids"] = [*vectors.skipped_token_ids.value]
        if expansion := vectors.query_expansion.value:
            sizes["multi_vector.query_expansion.length"] = expansion.length
            ids["multi_vector.query_expansion.token_id"] = [expansion.token_id]
    if manifest.reranking:
        sizes["reranking.labels (its length)"] = len(manifest.reranking.labels.value)
    for key, size in sizes.items():
        if size is not None and not 1 <= size <= _LARGEST:
            yield f"{key} is {size}, not between 1 and {_LARGEST}"
    for key, numbers in ids.items():
        yield from (f"{key} has {number}, which is no token id" for number in numbers if not 0 <= number <= _LARGEST)


def template_flaws(template: Template) -> Iterator[str]:
    """The problems of a template, in words: each placeholder must occur once, in the body."""
    wanted = {"{query}": 1, "{document}": 1, "{instruction}": 0 if template.instruction is None else 1}
    for placeholder, count in wanted.items():
        occurrences = template.body.count(placeholder)
        if occurrences != count:
            yield f"body has {placeholder} {occurrences} times, not {'once' if count else 'without an instruction'}"
        if placeholder in template.prefix or placeholder in template.suffix:
            yield f"{placeholder} stands outside of body"

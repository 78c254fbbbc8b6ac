"""Whether an artifact's files and its graph are those that its manifest describes.

Of the files: their sizes and hashes. Of the graph: its inputs and outputs, its tables, its files of weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from onnxembed.errors import IntegrityError, ModelFilesError
from onnxembed.loading.located import LocatedArtifact
from onnxembed.loading.onnx_file import INTEGERS, OnnxFile, read_onnx
from onnxembed.manifest import LOGITS, SPARSE_WEIGHTS, Embedding, FileRecord, Manifest, Variant

FLOAT_OUTPUTS = ("float32", "float16", "float64")
"""The types of outputs that are the numbers themselves."""


class Output(NamedTuple):
    """An output that a task reads, as the manifest describes it; `key` is the manifest's key that gives the width."""

    name: str
    rank: int
    width: int | None
    key: str


def outputs_read(manifest: Manifest) -> list[Output]:
    """The graph's outputs that the model's tasks read."""
    embedding, sparse, vectors = manifest.embedding, manifest.sparse, manifest.multi_vector
    outputs = [_embedding_output(embedding)] if embedding else []
    if sparse:
        per_token = sparse.graph_output == SPARSE_WEIGHTS
        rank = 3 if sparse.aggregated_by == "runtime" and not per_token else 2
        outputs.append(Output(sparse.graph_output, rank, None if per_token else sparse.dimension, "sparse.dimension"))
    if vectors:
        outputs.append(Output(vectors.graph_output, 3, vectors.dimension, "multi_vector.dimension"))
    if manifest.reranking:
        outputs.append(Output(LOGITS, 2, len(manifest.reranking.labels.value), "reranking.labels"))
    return outputs


def check_artifact(located: LocatedArtifact, *, hashes: bool) -> None:
    """Compare an artifact's files, and then its graph, with its manifest; a model adopted in memory has neither.

    Raises the errors of `check_files`, and ModelFilesError that names the manifest's key for inputs, outputs, widths
    and lengths that the graph does not have, and for weights in a file that the manifest does not name: it would be
    read unchecked.
    """
    if not located.records:
        return
    check_files(located.files.folder, located.records, hashes=hashes)
    variant, packed = located.manifest.variants[located.precision], located.graph.packed
    graph = read_onnx(located.graph.path)
    differences = [*_differences(graph, located.manifest, variant), *_unnamed_data(graph, variant)]
    if packed is not None:
        differences += _unnamed_data(read_onnx(packed), variant)
    if differences:
        raise ModelFilesError(
            f"{graph.path} is not the graph that its manifest describes: {'; '.join(differences)}. "
            "Export or download the model again"
        )


def check_files(folder: Path, records: Mapping[str, FileRecord], *, hashes: bool = True) -> None:
    """Compare the files of a folder with their records, by name; without `hashes`, only their sizes.

    Raises IntegrityError for a file that is absent, of another size, or of another sha256. All sizes are compared
    before any file is read.
    """
    for name, record in records.items():
        if not (folder / name).is_file():
            raise IntegrityError(f"{folder} lacks {name}; export or download the model again", name)
        size = (folder / name).stat().st_size
        if size != record.bytes:
            raise IntegrityError(
                f"{folder / name} has {size} bytes, not the {record.bytes} of the manifest; "
                "export or download the model again",
                name,
            )
    if not hashes:
        return
    import hashlib  # it loads OpenSSL, which `import onnxembed` need not wait for

    for name, record in records.items():
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != record.sha256:
            raise IntegrityError(
                f"{folder / name} has sha256 {digest}, not the manifest's {record.sha256}; "
                "export or download the model again",
                name,
            )


def check_links(graph: Path) -> None:
    """Raise ModelFilesError for weights that are linked from elsewhere, which ONNX Runtime does not open.

    It resolves links of the graph and of its weights, as the hub's cache has them, and wants both in one folder.
    """
    home = graph.resolve().parent
    for data in sorted(graph.parent / name for name in read_onnx(graph).data):
        if not data.resolve().is_relative_to(home):
            raise ModelFilesError(
                f"{data} is a link to {data.resolve()}, and ONNX Runtime reads weights only from the folder of their "
                "graph: put the file itself there, or link the graph and its weights from one folder"
            )


def _embedding_output(embedding: Embedding) -> Output:
    """Sentence embeddings, or the token embeddings that the runtime pools, side by side for several poolings."""
    if embedding.pooled_by == "graph":
        return Output(embedding.graph_output, 2, embedding.dimension, "embedding.dimension")
    pooled, key = embedding.dimension, "embedding.dimension"
    if embedding.dense:
        pooled, key = embedding.dense[0].in_features, "embedding.dense[0].in_features"
    modes = len(embedding.pooling.value)
    return Output(embedding.graph_output, 3, pooled // modes if pooled % modes == 0 else -1, key)


def _differences(graph: OnnxFile, manifest: Manifest, variant: Variant) -> Iterator[str]:
    """What the graph and the manifest say differently, in words."""
    inputs, named = {value.name for value in graph.inputs}, {*manifest.model.inputs}
    if inputs != named:
        yield f"it takes {', '.join(sorted(inputs))}, but model.inputs is {', '.join(sorted(named))}"
    for output in outputs_read(manifest):
        yield from _output_differences(graph, output, variant)
    yield from _table_differences(graph, manifest)


def _unnamed_data(graph: OnnxFile, variant: Variant) -> Iterator[str]:
    """Files of weights beside a graph that the manifest does not name."""
    place = PurePosixPath(variant.file).parent
    for name in sorted(graph.data):
        if (place / name).as_posix() != variant.data:
            yield f"it keeps weights in {name!r}, which nothing would check, while data is {variant.data!r}"


def _output_differences(graph: OnnxFile, output: Output, variant: Variant) -> Iterator[str]:
    value = next((value for value in graph.outputs if value.name == output.name), None)
    if value is None:
        have = ", ".join(value.name for value in graph.outputs)
        yield f"it has no output {output.name}, which the manifest reads, but {have}"
        return
    known = (*FLOAT_OUTPUTS, *(INTEGERS if value.name in variant.integer_outputs else ()))
    if value.element_type not in known:
        yield f"{value.name} is {value.element_type}, and integer_outputs does not say what that stands for"
    if value.shape is None:
        return
    if len(value.shape) != output.rank:
        yield f"{value.name} has {len(value.shape)} axes, not {output.rank}"
    elif output.width is not None and value.shape[-1] not in (None, output.width):
        yield f"{value.name} has {value.shape[-1]} numbers, which does not go with {output.key}"


def _table_differences(graph: OnnxFile, manifest: Manifest) -> Iterator[str]:
    """Whether the tables of token and of position embeddings have the rows that the manifest asks for."""
    tokenization = manifest.tokenization
    tables = [node.inputs[0] for node in graph.nodes if node.operator == "Gather" and node.inputs[1:] == ("input_ids",)]
    rows = [graph.shapes[name][0] for name in tables if graph.shapes.get(name)]
    if rows and tokenization.pad_token_id.value >= min(rows):
        yield f"tokenization.pad_token_id is {tokenization.pad_token_id.value}, but its table has {min(rows)} rows"
    positions = [shape[0] for name, shape in graph.shapes.items() if name.endswith(".position_embeddings.weight")]
    if manifest.model.engine == "build" and positions and tokenization.max_length.value > min(positions):
        yield f"tokenization.max_length is {tokenization.max_length.value}, but it has {min(positions)} positions"

"""The model card of an artifact: README.md with the metadata that the hub reads, and the license of the source.

The card says what the manifest says. It is written last, because it holds the figures of verification. People edit
cards, so its hash is not recorded, and only the part between two marks is written again by a later verification.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onnxembed.atomic import write_whole
from onnxembed.manifest import CARD_FILE, Manifest, Task
from onnxembed.manifest.describe import decisions, describe_output, describe_overruled, describe_verification, megabytes

LICENSES = re.compile(r"(licen[cs]e|notice|copying)([.\-_].*)?", re.IGNORECASE)
"""The names of files with a license or a notice that must travel with the weights."""

BEGIN, END = "<!-- figures of onnxembed verify -->", "<!-- end of figures -->"

# What the hub calls each task.
PIPELINE_TAGS: dict[Task, str] = {
    "embedding": "sentence-similarity",
    "sparse": "feature-extraction",
    "multi_vector": "sentence-similarity",
    "reranking": "text-ranking",
}

# Metadata of the source's card that holds for its graphs, too.
CARRIED = ("license", "license_name", "license_link", "language", "base_model")

USAGE: dict[Task, str] = {
    "embedding": """\
from onnxembed import OnnxEmbedder

model = OnnxEmbedder("FOLDER")
queries = model.encode_query(["what is a cat?"])
documents = model.encode_document(["A cat is a small animal.", "Paris is a city."])
print(model.similarity(queries, documents))""",
    "sparse": """\
from onnxembed import OnnxEmbedder

model = OnnxEmbedder("FOLDER")
for embedding in model.encode_sparse(["A cat is a small animal.", "Paris is a city."]):
    print(embedding.indices, embedding.values)""",
    "multi_vector": """\
from onnxembed import OnnxEmbedder, maxsim

model = OnnxEmbedder("FOLDER")
query = model.encode_multi_vector("what is a cat?", kind="query")
for document in model.embed_multi_vector(["A cat is a small animal.", "Paris is a city."], kind="document"):
    print(maxsim(query, document))""",
    "reranking": """\
from onnxembed import OnnxReranker

model = OnnxReranker("FOLDER")
print(model.rank("what is a cat?", ["A cat is a small animal.", "Paris is a city."]))""",
}
"""How each task is used; FOLDER stands for a folder or the name of a repository."""


def read_metadata(folder: Path) -> dict[str, Any]:
    """What of the metadata of a checkpoint's own card is carried over; empty if it has none that can be read."""
    from huggingface_hub.repocard import metadata_load

    try:
        metadata = metadata_load(folder / CARD_FILE) or {}
    except Exception:  # a card is prose: what is wrong in it, in whatever way, changes no vector and stops no export
        return {}
    return {key: metadata[key] for key in CARRIED if _is_text(metadata.get(key))}


def _is_text(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, str) for item in value)
    return isinstance(value, str) and bool(value)


def license_of(metadata: Mapping[str, Any]) -> str | None:
    """The license that a card names, for the manifest; for a license of its own, that license's name."""
    named = metadata.get("license")
    if named == "other":
        named = metadata.get("license_name", named)
    return ", ".join(named) if isinstance(named, list) else named


def copy_license(source: Path, folder: Path) -> None:
    """Copy the files with licenses and notices from a checkpoint's folder into an artifact's."""
    for path in sorted(source.iterdir()):
        if path.is_file() and LICENSES.fullmatch(path.name):
            shutil.copyfile(path, folder / path.name)


def write_card(folder: Path, manifest: Manifest, metadata: Mapping[str, Any]) -> None:
    """Write README.md of an artifact; `metadata` is what the source's card says."""
    licensed = [path.name for path in sorted(folder.iterdir()) if LICENSES.fullmatch(path.name)]
    text = f"---\n{_front_matter(manifest, metadata)}---\n\n" + "\n".join(_body(manifest, licensed)) + "\n"
    (folder / CARD_FILE).write_bytes(text.encode("utf-8", "backslashreplace"))


def refresh_card(folder: Path, manifest: Manifest) -> None:
    """Write the figures of a new verification into a card that still has the place for them."""
    path = folder / CARD_FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if found and closed:
        figures = "\n".join(_figures(manifest))
        write_whole(path, lambda file: file.write(f"{before}{figures}{after}".encode()), force=True)


def _front_matter(manifest: Manifest, metadata: Mapping[str, Any]) -> str:
    """The card's metadata in YAML; a hub model is the base of its graphs."""
    from huggingface_hub import ModelCardData

    own = {"base_model": manifest.source.model} if manifest.source.revision else {}
    data = ModelCardData(
        **{**metadata, **own},
        pipeline_tag=PIPELINE_TAGS[manifest.tasks[0]],
        library_name="onnxembed",
        tags=["onnx", "onnxembed", *(task.replace("_", "-") for task in manifest.tasks)],
    )
    return data.to_yaml(line_break="\n").strip() + "\n"


def _body(manifest: Manifest, licenses: list[str]) -> Iterator[str]:
    source, made_by = manifest.source, manifest.created_with["onnxembed"]
    name = _base_name(source.model)
    where = f"[{source.model}](https://huggingface.co/{source.model}) at {source.revision}" if source.revision else name
    how = "Its graph was made by another program" if manifest.model.engine == "adopted" else "It was exported"
    yield f"# {name} as ONNX"
    yield ""
    yield f"This folder holds {where} for ONNX Runtime: {describe_output(manifest)}. {how}; onnxembed {made_by} wrote"
    yield "`onnxembed.json`, which has every decision with its origin, and the hash of every file but this one."
    for line in describe_overruled(manifest):
        yield ""
        yield f"**Note: {line}.**"
    yield ""
    yield "| | |"
    yield "|---|---|"
    for key, value in decisions(manifest):
        if key not in ("source", "made with"):
            yield f"| {key} | {_cell(value)} |"
    for precision, variant in manifest.variants.items():
        size = sum(manifest.files[file].bytes for file in (variant.file, variant.data) if file)
        yield f"| {precision} graph | `{variant.file}`, {megabytes(size)} |"
    yield ""
    yield "## How to use it"
    yield ""
    yield "`pip install 'onnxembed[cpu]'`. FOLDER is a copy of this folder, or the name of its repository on the hub."
    for task in manifest.tasks:
        yield ""
        yield f"```python\n{USAGE[task]}\n```"
    yield ""
    yield "## Verification"
    yield ""
    yield from _figures(manifest)
    yield ""
    yield "## License"
    yield ""
    yield _license(source.license, licenses)


def _figures(manifest: Manifest) -> list[str]:
    """What was measured, between the marks."""
    lines = [f"- {line}" for line in describe_verification(manifest)]
    return [BEGIN, *(lines or ["Not compared with the original model."]), END]


def _license(named: str | None, files: list[str]) -> str:
    if named is None and not files:
        return "The original model's files name no license. Its terms hold for this folder, too."
    stated = f"The original model's license is {named}" if named else "The original model has a license of its own"
    return f"{stated}; see {', '.join(f'`{file}`' for file in files)}." if files else f"{stated}."


def _base_name(model: str) -> str:
    """The last part of a hub id or of a path; a path says more of the machine than of the model."""
    return Path(model).expanduser().resolve().name if Path(model).is_dir() else Path(model).name


def _cell(text: str) -> str:
    """A text in a row of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")

"""The documents tell the truth: paths that they name exist, so do commands and options, and the glossary is short."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest

import onnxembed
from onnxembed.cli import cli

ROOT = Path(__file__).parents[1]
PACKAGE = Path(onnxembed.__file__).parent

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "export/README.md")),
        *(ROOT / "docs").glob("*.md"),
    )
)

# What stands for something that the reader fills in.
PLACEHOLDER = re.compile(r"\b(test_)?(NAME|COMMAND|TASK)\b|\.\.\.|\*")

MAX_GLOSSARY = 30


def code_spans(text: str) -> list[str]:
    """What stands in backticks within lines; code blocks are left out."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", without_blocks(text))]


def without_blocks(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    """The targets of links that lead to files, without their anchors."""
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", without_blocks(text))
    return [target for target in targets if "://" not in target]


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing_anchors(text: str, folder: Path = ROOT) -> list[str]:
    """The links of a document in `folder` to headings that are not there."""
    found = re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", without_blocks(text))
    own = [(target, anchor) for target, anchor in found if "://" not in target]
    return [
        f"{target}#{anchor}"
        for target, anchor in own
        if anchor not in anchors((folder / target).read_text(encoding="utf-8") if target else text)
    ]


def folders() -> set[str]:
    """What a path of the repository begins with: its folders, those of the package, and those of the tests."""
    places = [path for root in (ROOT, PACKAGE) for path in root.iterdir() if path.is_dir()]
    return {path.name for path in places if not path.name.startswith(("_", "."))} - {"models", "build", "dist"}


def repository_paths(spans: Sequence[str]) -> Iterator[str]:
    """The words of code spans that are paths of the repository: by their first folder, or by their suffix."""
    for word in (word for span in spans for word in span.split()):
        path = word.removeprefix("./").rstrip(",;:")
        first, slash, _ = path.partition("/")
        own = bool(slash) and first in folders()
        if (own or re.fullmatch(r"[\w/]+\.(py|md)", path)) and not PLACEHOLDER.search(path):
            yield path


def exists(path: str) -> bool:
    """Whether a path exists in the repository, or in the package, whose files are named without `src/onnxembed`."""
    return any((root / path).exists() for root in (ROOT, PACKAGE))


def missing_paths(text: str, folder: Path = ROOT) -> list[str]:
    """The paths and links of a document in `folder` that lead nowhere."""
    lost = [path for path in repository_paths(code_spans(text)) if not exists(path)]
    return lost + [target for target in links(text) if not (folder / target).exists()]


def commands(text: str) -> list[list[str]]:
    """The words of every `onnxembed ...` command, in code spans and in blocks, without comments."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()] + code_spans(text)
    found = [re.search(r"(?:^|\| )onnxembed ([^#|>]+)", line) for line in lines]
    return [match[1].split() for match in found if match]


def unknown_words(words: Sequence[str]) -> list[str]:
    """The subcommand or the options of a command that do not exist."""
    command = cli.commands.get(words[0])
    if command is None:
        return [] if words[0].startswith("--") or PLACEHOLDER.search(words[0]) else [words[0]]
    known = options(command)
    return [word for word in words[1:] if re.match(r"--?[a-z]", word) and word not in known]


def options(command: click.Command) -> set[str]:
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}


def all_options() -> set[str]:
    """Every option of every command, and those that the scripts and tests/conftest.py define."""
    sources = [*(ROOT / "scripts").rglob("*"), ROOT / "tests/conftest.py"]
    texts = [path.read_text(encoding="utf-8") for path in sources if path.is_file() and path.suffix in ("", ".py")]
    defined = {name for text in texts for name in re.findall(r'"(--[a-z][a-z-]*)"', text)}
    return defined.union(*map(options, cli.commands.values()))


def bare_options(text: str) -> list[str]:
    """Options that stand in a code span of their own, with or without a value."""
    return [span.split()[0] for span in code_spans(text) if re.match(r"--[a-z]", span)]


def glossary(text: str) -> list[str]:
    """The terms of the section called Glossary: the first column of its table."""
    section = re.search(r"^## Glossary\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| ([^|]+) \|", section[1], flags=re.MULTILINE) if section else []
    return [row for row in rows if row != "word"]


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_and_link_exists(document: str) -> None:
    assert missing_paths(read(document), (ROOT / document).parent) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_to_a_heading_finds_it(document: str) -> None:
    assert missing_anchors(read(document), (ROOT / document).parent) == []


def test_the_readme_leads_to_every_page() -> None:
    assert {*DOCUMENTS} - {*links(read("README.md"))} == {"README.md"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_is_named_exists(document: str) -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = [span for span in code_spans(read(document)) if re.fullmatch(r"test_\w+", span)]
    assert [name for name in named if f"def {name}(" not in sources] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_and_its_options_exist(document: str) -> None:
    wrong = {" ".join(words): unknown for words in commands(read(document)) if (unknown := unknown_words(words))}
    assert wrong == {}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_option_that_is_named_alone_exists(document: str) -> None:
    assert set(bare_options(read(document))) - all_options() == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_lines_are_at_most_120_characters_long(document: str) -> None:
    lines = [line for line in read(document).splitlines() if not line.lstrip().startswith("|")]  # a table's row is one
    assert [line for line in lines if len(line) > 120] == []


def test_the_glossary_has_at_most_thirty_words_each_once() -> None:
    words = glossary(read("CONTRIBUTING.md"))
    assert 10 <= len(words) <= MAX_GLOSSARY
    assert len(words) == len(set(words))


def test_the_house_is_drawn_as_it_is() -> None:
    section = re.search(r"^## The house\n.*?^```\n(.*?)^```", read("CONTRIBUTING.md"), flags=re.MULTILINE | re.DOTALL)
    assert section
    drawn = [name for line in section[1].splitlines() for name in re.split(r"\s{2,}", line)[0].split()]
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert sorted(drawn) == sorted(room for room in rooms if not room.startswith("__"))


# ---- would these tests notice?


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("see `src/onnxembed/nowhere.py`", "src/onnxembed/nowhere.py"),
        ("see `manifest/nowhere.py`", "manifest/nowhere.py"),
        ("see `nowhere.py`", "nowhere.py"),
        ("run `./scripts/nowhere --fast`", "scripts/nowhere"),
        ("see [the text](docs/nowhere.md#part)", "docs/nowhere.md"),
    ],
)
def test_a_wrong_path_would_be_noticed(text: str, lost: str) -> None:
    assert missing_paths(text) == [lost]


@pytest.mark.parametrize("lost", ["#nowhere", "README.md#nowhere"])
def test_a_wrong_anchor_would_be_noticed(lost: str) -> None:
    text = f"# Some `words`, here\n[right](#some-words-here), [right](README.md#export), [wrong]({lost})"
    assert missing_anchors(text) == [lost]


def test_right_paths_placeholders_and_addresses_are_no_wrong_paths() -> None:
    text = "`manifest/words.py`, `./scripts/test tests/cli`, `export/recipes/NAME.toml`, [onnx](https://onnx.ai), `a/b`"
    assert missing_paths(text) == []


def test_wrong_commands_and_options_would_be_noticed() -> None:
    text = "```\nonnxembed embedd DIR\nonnxembed embed DIR --provder cpu  # --this is a comment\n```\n`--nothing`"
    assert [unknown_words(words) for words in commands(text)] == [["embedd"], ["--provder"]]
    assert set(bare_options(text)) - all_options() == {"--nothing"}


def test_the_documents_are_found_and_full_of_both() -> None:
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md"} <= {*DOCUMENTS}
    assert len(commands(read("README.md"))) >= 10
    assert len(list(repository_paths(code_spans(read("CONTRIBUTING.md"))))) >= 30

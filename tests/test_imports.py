"""What is imported, and when: loading and embedding need numpy, tokenizers and ONNX Runtime, nothing else."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import onnxembed

PACKAGE = Path(onnxembed.__file__).parent
RUNTIME = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0]
    not in ("__main__.py", "cli", "commands", "explain", "export", "serve", "verify")
)

# What a text goes through, from a folder to its vector: all of these packages' modules that are brought in.
EMBEDDING = {
    *("arguments", "arrays", "counting", "embedder", "errors", "execution", "foreign_errors", "hub", "loading"),
    *("manifest", "proof", "protobuf", "quantization", "runtime", "similarity", "tokenizer", "warning"),
}
# What only adoption and the hub take.
OTHERS = {
    *("hub.checkpoint_files", "hub.hub_files", "hub.client", "hub.cache", "loading.adopt", "loading.found_graph"),
    *("tokenizer.changes", "tokenizer.end_token"),
}

# Modules of the standard library that take longer to import than most of the package.
SLOW = ("asyncio", "email", "hashlib", "importlib.metadata", "socket", "ssl", "zipfile")

BLOCKED = ("torch", "transformers", "sentence_transformers", "onnx", "safetensors", "ml_dtypes", "onnxembed.export")

BLOCK = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in {BLOCKED} or name.startswith({tuple(name + "." for name in BLOCKED)}):
            raise ModuleNotFoundError("blocked: " + name, name=name)

sys.meta_path.insert(0, Blocker())
"""


def run(program: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """What a program prints in a fresh interpreter, warnings being errors."""
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_by(program: str, *arguments: str) -> set[str]:
    """The top-level modules that a program brings in."""
    printed = run(program + "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})", *arguments)
    return set(printed.splitlines()[-1].split())


def test_embedding_needs_neither_torch_nor_the_exporter(artifact: Path) -> None:
    program = BLOCK + (
        "from onnxembed import OnnxEmbedder\n"
        "with OnnxEmbedder(sys.argv[1]) as model:\n"
        "    print(model.encode(['the cat', '']).shape, len(list(model.embed(['a'] * 3))))\n"
    )
    assert run(program, str(artifact)) == "(2, 32) 3\n"


@pytest.mark.parametrize("blocked", BLOCKED)
def test_the_blocker_blocks(blocked: str) -> None:
    program = BLOCK + f"try: import {blocked}\nexcept ModuleNotFoundError as error: print(error)"
    assert run(program) == f"blocked: {blocked}\n"


def test_pooling_in_the_runtime_needs_them_neither(tmp_path: Path) -> None:
    from onnxembed.export.pipeline import export
    from onnxembed.export.plan import Options
    from tiny import write_sentence_bert

    write_sentence_bert(tmp_path / "checkpoint", dense=((32, 8, "torch.nn.modules.activation.GELU"),))
    export(tmp_path / "checkpoint", tmp_path / "artifact", Options(pooling_out=True))
    program = BLOCK + "from onnxembed import OnnxEmbedder\nprint(OnnxEmbedder(sys.argv[1]).encode('the cat').shape)"
    assert run(program, str(tmp_path / "artifact")) == "(8,)\n"


def test_a_local_folder_needs_no_hub_client(artifact: Path) -> None:
    program = "import sys\nfrom onnxembed import OnnxEmbedder\nOnnxEmbedder(sys.argv[1]).encode('the cat')"
    names = imported_by(program, str(artifact))
    assert {"numpy", "tokenizers", "onnxruntime"} <= names
    assert not names & {"huggingface_hub", "httpx", "httpx2", "requests", "click", "tqdm", *BLOCKED}


def test_importing_the_package_imports_none_of_its_modules_and_no_other_package() -> None:
    """Each public name brings in what it needs when it is first used."""
    new = run("import sys; old = set(sys.modules); import onnxembed; print(*{*sys.modules} - old)").split()
    assert {name for name in new if name.partition(".")[0] not in sys.stdlib_module_names} == {"onnxembed"}
    assert not {*new} & {"asyncio", "dataclasses", "hashlib", "importlib.metadata", "pathlib", "ssl", "typing"}


def test_the_command_begins_before_anything_else_is_imported() -> None:
    """So that Ctrl-C is answered while it is."""
    new = run("import sys; old = set(sys.modules); import onnxembed.__main__; print(*sorted({*sys.modules} - old))")
    assert not {*new.split()} & {"numpy", "click", "typing", "dataclasses", "onnxembed.cli", "onnxembed.embedder"}


def test_the_command_line_tells_what_it_does_without_the_libraries_of_its_commands() -> None:
    program = "from onnxembed.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    names = imported_by(program)
    assert "click" in names
    assert not names & {"onnxruntime", "tokenizers", "huggingface_hub", "asyncio", *BLOCKED}


def test_importing_the_embedder_imports_little() -> None:
    names = imported_by("from onnxembed import OnnxEmbedder")
    assert "numpy" in names
    assert not names & {"onnxruntime", "tokenizers", "huggingface_hub", "click", "tqdm", *BLOCKED}


def test_importing_the_embedder_imports_what_embedding_takes_and_no_more() -> None:
    """Not what adoption, the hub or the reranker take; nor modules that take longer to import than all of these.

    Only who awaits needs an event loop.
    """
    new = run(
        "import sys, numpy; old = set(sys.modules); from onnxembed import OnnxEmbedder\n"
        "print(*sorted({*sys.modules} - old))"
    ).split()
    own = {name.removeprefix("onnxembed.") for name in new if name.startswith("onnxembed.")}
    assert "runtime.open_model" in own
    assert not own & OTHERS
    assert {name.partition(".")[0] for name in own} == EMBEDDING
    assert not {*SLOW} & {*new}


def test_a_local_artifact_takes_nothing_of_adoption_the_hub_or_the_metadata_of_packages(artifact: Path) -> None:
    program = "import sys\nfrom onnxembed import OnnxEmbedder\nOnnxEmbedder(sys.argv[1]).encode('the cat')\n"
    new = {*run(program + "print(*sys.modules)", str(artifact)).split()}
    own = {name.removeprefix("onnxembed.") for name in new if name.startswith("onnxembed.")}
    assert "runtime.open_model" in own
    assert not own & OTHERS
    assert {name.partition(".")[0] for name in own} == EMBEDDING
    assert not {*SLOW} - {"hashlib"} & new  # every file is hashed


def test_onnx_runtime_reports_nothing_unless_it_is_told_to(artifact: Path, tmp_path: Path) -> None:
    """It keeps what it will send in the user's cache."""
    program = "import sys\nfrom onnxembed import OnnxEmbedder\nOnnxEmbedder(sys.argv[1]).encode('the cat')\n"
    program += "import os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache"), "CI": ""}
    usual = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    for chosen, said in ({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0"):
        assert run(program, str(artifact), env={**usual, **home, **chosen}) == f"{said}\n"
        assert chosen or list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["manifest", "errors"])
def test_the_contract_needs_the_standard_library_only(module: str) -> None:
    """Loaded without the package around it, which needs numpy."""
    program = (
        "import sys, types\n"
        "package = sys.modules['onnxembed'] = types.ModuleType('onnxembed')\n"
        "package.__path__ = [sys.argv[1]]\n"
        f"before = set(sys.modules)\nimport onnxembed.{module}\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - sys.stdlib_module_names - {'onnxembed'}))"
    )
    assert run(program, str(PACKAGE)) == "\n"


@pytest.mark.parametrize("module", RUNTIME)
def test_no_module_of_the_runtime_names_the_exporter(module: str) -> None:
    """Not even inside a function, where a test may never come."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    assert not [name for name in names if any(f"{name}.".startswith(f"{each}.") for each in BLOCKED)]

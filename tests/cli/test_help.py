"""The command line as a whole: help, examples and mistyped commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from hub_server import HubServer
from onnxembed.cli import COMMANDS, cli
from running import USUAL, Run, names, refused


@pytest.mark.parametrize("arguments", [[], ["export"], ["embed"], ["inspect"], ["verify"]])
def test_every_command_has_help(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments, "--help")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: ")


def test_the_commands_stand_under_headings_that_say_what_they_are_for(run: Run) -> None:
    _, out, _ = run("--help")
    headings = [part.partition(":\n") for part in out.split("\n\n") if part.partition(":\n")[0] in COMMANDS]
    shown = {heading: [line.split()[0] for line in lines.splitlines()] for heading, _, lines in headings}
    assert shown == {
        "Make an ONNX folder": ["export", "adopt"],
        "Use it": ["embed", "rerank", "serve", "load"],
        "Prove and explain": ["verify", "compare", "explain"],
        "Look things up": ["inspect", "models", "recipes", "doctor"],
    }
    words = [line[11:] for _, _, lines in headings for line in lines.splitlines()]
    assert len(words) == len(cli.commands)
    assert all(line[0].isupper() and line.endswith(".") for line in words)  # aligned, and nothing is cut off


def test_help_fits_into_80_columns() -> None:
    for name, command in {"": cli, **cli.commands}.items():
        context = click.Context(command, info_name=f"onnxembed {name}".strip(), terminal_width=80)
        long = [line for line in command.get_help(context).splitlines() if len(line) > 82]  # an indented example of 80
        assert long == []


def test_the_version_is_printed(run: Run) -> None:
    from onnxembed import __version__

    assert run("--version") == run("-V") == (0, f"onnxembed, version {__version__}\n", "")


def test_every_option_is_explained() -> None:
    for name, command in cli.commands.items():
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, f"{name} {parameter.name}"


def test_the_examples_of_the_help_are_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model-onnx").mkdir()
    examples = []
    for command in (cli, *cli.commands.values()):
        lines = [line.strip() for line in (command.help or "").splitlines()]
        examples += [line[line.index("onnxembed ") :] for line in lines if line.startswith(("onnxembed ", "cat "))]
    assert len(examples) > 6
    for example in examples:
        _, name, *arguments = shlex.split(example.partition(" >")[0])
        cli.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("arguments", [["--nonsense"], ["embed", "--nonsense"], ["embed"], ["nonsense"], []])
def test_a_mistaken_command_shows_how_to_use_it(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    if not arguments and version("click").startswith("8.1."):  # which prints the help of a group that is called alone
        assert (code, out[:7], err) == (0, "Usage: ", "")
        return
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ")


def test_a_name_that_is_neither_a_folder_nor_on_the_hub(run: Run, hub: HubServer, tmp_path: Path) -> None:
    for arguments in (["export"], ["embed"], ["inspect"]):
        name, texts = arguments[0], ["text"] if arguments == ["embed"] else []
        outcome = run(name, "models/absent", *texts, "--cache-dir", "cache")
        assert refused(outcome, "no folder 'models/absent' here", "no such model on", hub.url)
    assert names(tmp_path) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_options_and_values(shell: str, tmp_path: Path) -> None:
    """As docs/commands.md tells each shell to ask; the program has to have its own name."""
    program = tmp_path / "onnxembed"
    program.write_text(f"#!{sys.executable}\nfrom onnxembed.cli import main\nmain()\n")
    program.chmod(0o755)

    def ask(what: str, **variables: str) -> str:
        env = {**USUAL, **variables, "_ONNXEMBED_COMPLETE": f"{shell}_{what}"}
        return subprocess.run([program], env=env, capture_output=True, text=True, check=True).stdout

    assert "_ONNXEMBED_COMPLETE" in ask("source")
    for words, expected in (
        (["onnxembed", "insp"], {"inspect"}),
        (["onnxembed", "export", "--pool"], {"--pooling", "--pooling-out"}),
        (["onnxembed", "export", "--engine", "tr"], {"trace"}),
    ):
        place = words[-1] if shell == "fish" else str(len(words) - 1)
        completed = ask("complete", COMP_WORDS=" ".join(words), COMP_CWORD=place)
        assert expected <= {*re.split(r"[\s,]+", completed)}

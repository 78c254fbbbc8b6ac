"""A stand-in for the Hugging Face hub: the part of its HTTP API through which models are found and downloaded.

    with HubServer({"org/model": {"main": folder}}) as hub:
        subprocess.run(command, env={**os.environ, "HF_ENDPOINT": hub.url})
        print(hub.requests)

Every push makes a commit, named after its content; branches and tags are names of commits. Errors have
the status codes and headers of the real hub, which huggingface_hub tells them apart by.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

# What repositories' .gitattributes usually put into LFS.
LFS = (".safetensors", ".bin", ".model", ".onnx", ".onnx_data", ".h5", ".msgpack", ".gguf", ".pt", ".pth", ".ot")

Files = dict[str, bytes]


class Repository:
    """The commits of one model and the names that lead to them."""

    def __init__(self) -> None:
        self.commits: dict[str, Files] = {}
        self.revisions: dict[str, str] = {}

    def push(self, files: Files, revision: str) -> str:
        digests = sorted((name, hashlib.sha1(content).hexdigest()) for name, content in files.items())
        commit = hashlib.sha1(repr(digests).encode()).hexdigest()
        self.commits[commit] = files
        self.revisions[revision] = commit
        return commit

    def commit(self, revision: str) -> str | None:
        return self.revisions.get(revision, revision if revision in self.commits else None)


class HubServer:
    """Serves models on a local port while its `with` block runs.

    What goes wrong is set on the object: `tokens` (model -> the token it needs), `gated` (models whose
    files nobody may have), `cut_at` (file -> the byte before which every transfer breaks off), `cuts` (how
    often that happens before transfers work again), `corrupted` (files served with their bytes inverted),
    `status` (the answer to every request about a model), `refusals` (statuses and headers of the next answers),
    `etags` (file -> the name that the hub gives to its content), `renamed` (old -> new name of a model), `delay`
    (seconds before each answer).
    """

    def __init__(self, models: Mapping[str, Mapping[str, Path]]) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []  # about models: "GET /org/model/resolve/<commit>/config.json"
        self.ranges: list[str] = []
        self.authorizations: set[str | None] = set()
        self.tokens: dict[str, str] = {}
        self.gated: set[str] = set()
        self.cut_at: dict[str, int] = {}
        self.cuts = 1_000_000
        self.corrupted: set[str] = set()
        self.status: int | None = None
        self.refusals: list[tuple[int, dict[str, str]]] = []
        self.etags: dict[str, str] = {}
        self.renamed: dict[str, str] = {}
        self.delay = 0.0
        for model, revisions in models.items():
            for revision, folder in revisions.items():
                self.push(model, folder, revision)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def push(self, model: str, folder: Path, revision: str = "main") -> str:
        """Commit the folder's files and let the revision name them; returns the commit."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        return self.repositories.setdefault(model, Repository()).push(files, revision)

    def commit(self, model: str, revision: str = "main") -> str:
        return self.repositories[model].revisions[revision]

    def downloaded(self) -> list[str]:
        """Names of the files whose bytes were asked for, once each, in order."""
        found = (re.match(r"GET /.*?/resolve/[^/]+/(.+)", request) for request in self.requests)
        return list(dict.fromkeys(match[1] for match in found if match))

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def hub(self) -> HubServer:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def do_HEAD(self) -> None:
        self.route()

    def do_GET(self) -> None:
        self.route()

    def route(self) -> None:
        path = urlsplit(self.path).path
        if path == "/api/agent-harnesses":  # huggingface_hub requests this once a day
            self.refuse(404, "", "no such page")
            return
        self.hub.requests.append(f"{self.command} {unquote(path)}")
        self.hub.authorizations.add(self.headers["Authorization"])
        threading.Event().wait(self.hub.delay)
        if self.hub.refusals:
            status, headers = self.hub.refusals.pop(0)
            self.refuse(status, "", "too many requests", headers)
        elif (moved := self.moved(path)) is not None:
            self.send(307, b"", {"Location": moved})
        elif self.hub.status:
            self.refuse(self.hub.status, "", "out of order")
        elif match := re.fullmatch(r"/api/models/(.+?)(?:/(revision|tree)/([^/]+))?", path):
            self.api(match[1], match[2], unquote(match[3] or "main"))
        elif match := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            self.resolve(match[1], unquote(match[2]), unquote(match[3]))
        else:
            self.refuse(404, "", "no such page")

    def moved(self, path: str) -> str | None:
        """Where a renamed model's page is now, as the hub redirects to it."""
        for old, new in self.hub.renamed.items():
            for start in (f"/api/models/{old}", f"/{old}/resolve"):
                if path.startswith(f"{start}/") or path == start:
                    return path.replace(old, new, 1)
        return None

    def find(self, model: str, revision: str) -> tuple[str, Files] | None:
        """The commit and its files; None if a refusal was sent."""
        repository = self.hub.repositories.get(model)
        given, token = self.headers["Authorization"], self.hub.tokens.get(model)
        if repository is None or (token and given != f"Bearer {token}"):
            # Without a token, the hub does not reveal whether a model exists.
            self.refuse(404 if given else 401, "RepoNotFound", "Repository not found")
            return None
        commit = repository.commit(revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return commit, repository.commits[commit]

    def api(self, model: str, kind: str | None, revision: str) -> None:
        if not (found := self.find(model, revision)):
            return
        commit, files = found
        if kind == "tree":
            self.send(200, json.dumps([tree_entry(name, content) for name, content in files.items()]).encode())
            return
        info = {"id": model, "modelId": model, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
        self.send(200, json.dumps(info).encode())

    def resolve(self, model: str, revision: str, file: str) -> None:
        if not (found := self.find(model, revision)):
            return
        commit, files = found
        if model in self.hub.gated:
            self.refuse(
                403 if self.headers["Authorization"] else 401, "GatedRepo", f"Access to model {model} is restricted"
            )
            return
        if file not in files:
            self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            return
        content = files[file]
        name = self.hub.etags.get(file, etag(file, content))
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes", "ETag": f'"{name}"'}
        if file.endswith(LFS):
            headers |= {"X-Linked-Etag": f'"{name}"', "X-Linked-Size": str(len(content))}
        if file in self.hub.corrupted:
            content = bytes(255 - byte for byte in content)
        start, status = 0, 200
        if range_header := self.headers["Range"]:
            self.hub.ranges.append(range_header)
            start, status = int(range_header.removeprefix("bytes=").removesuffix("-")), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        end = len(content)
        if self.command == "GET" and file in self.hub.cut_at and self.hub.cuts:
            self.hub.cuts -= 1
            end = max(start, self.hub.cut_at[file])
        self.send(status, content[start:], headers, stop=end - start)

    def refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        errors = {"X-Error-Code": code} if code else {}
        self.send(
            status, json.dumps({"error": message}).encode(), {**errors, "X-Error-Message": message, **(headers or {})}
        )

    def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None, stop: int | None = None) -> None:
        """Send an answer; only the bytes before `stop` get through."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        part = body[:stop]
        with contextlib.suppress(ConnectionError):  # the client has disconnected
            self.wfile.write(part)
        self.close_connection = len(part) < len(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output quiet; `HubServer.requests` has them all."""


def etag(file: str, content: bytes) -> str:
    """The sha256 of an LFS file, the id of git's blob of any other."""
    if file.endswith(LFS):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def tree_entry(name: str, content: bytes) -> dict[str, Any]:
    """A file in the form of the tree listing; its id is that of git's blob, which is a pointer for LFS."""
    entry = {"type": "file", "path": name, "size": len(content), "oid": etag("", content)}
    if name.endswith(LFS):
        entry["lfs"] = {"oid": etag(name, content), "size": len(content), "pointerSize": 134}
    return entry

"""A hub on loopback that the real client talks to: enough of the hub's HTTP interface, a request log, and faults.

    import hub_server

    hub = hub_server.hub

    def test_something(hub):
        hub.add_repo("timm/x", {"main": {"model.safetensors": data, "config.json": text}})
        fetch("hf://timm/x")
        assert hub.count("GET") == 1

Large files (`LFS_SUFFIXES`) answer with a redirect to the same server under its other name (`localhost` instead of
`127.0.0.1`), as the hub redirects to its storage; all others are sent at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pytest

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".onnx")
PORTAL = b"<!DOCTYPE html>\n<html><body>Please accept our terms to use this network.</body></html>\n"
LONGEST_HANG = 15.0
"""Seconds after which a hanging answer ends by itself, also when nobody closes the server."""


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Fault:
    """What goes wrong with answers whose path ends with `file`, for the next `times` of them.

    kind: `flip` (same size, one bit wrong), `short` (fewer bytes than announced, complete by its own length),
        `cut` (the connection ends in the middle), `status` (an HTTP error), `portal` (a web page of status 200),
        `hang` (no answer), `size` (an announced size of `size` bytes).
    method: HEAD or GET. headers: sent with `status`.
    """

    kind: str
    file: str = ""
    method: str = "GET"
    times: int = 1_000_000
    status: int = 503
    size: int = 0
    headers: dict[str, str] = field(default_factory=dict)


def commit_of(files: Mapping[str, bytes]) -> str:
    """A commit id that depends on the content alone."""
    digest = hashlib.sha1()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + hashlib.sha256(files[name]).digest())
    return digest.hexdigest()


class HubServer:
    """A hub that ends with its `with` block. `url` is its address; `log` every request it saw."""

    def __init__(self) -> None:
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self.gated: set[str] = set()
        self._repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self._refs: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering; connections that hang are let go."""
        if not self.closing.is_set():
            self.closing.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def add_repo(self, repo: str, branches: Mapping[str, Mapping[str, bytes | str]]) -> dict[str, str]:
        """Add a repository, or new commits to one; old commits stay. Returns branch -> commit."""
        for branch, files in branches.items():
            data = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
            commit = commit_of(data)
            self._repos.setdefault(repo, {})[commit] = data
            self._refs.setdefault(repo, {})[branch] = commit
        return dict(self._refs[repo])

    def fail(self, kind: str, file: str = "", **options: object) -> Fault:
        """Add a fault; see `Fault`. The newest that fits an answer is used."""
        fault = Fault(kind, file, **options)  # type: ignore[arg-type]
        self.faults.append(fault)
        return fault

    def count(self, method: str = "", file: str = "") -> int:
        """How many requests there were, of a method and for a file's name where they are given."""
        return sum(request.method.startswith(method) and request.path.endswith(file) for request in self.log)

    def note(self, request: Request) -> None:
        with self._lock:
            self.log.append(request)

    def fault(self, method: str, path: str) -> Fault | None:
        """The fault for an answer, used up by one."""
        with self._lock:
            for fault in reversed(self.faults):
                if fault.times > 0 and fault.method == method and path.endswith(fault.file):
                    fault.times -= 1
                    return fault
        return None

    def commit(self, repo: str, revision: str) -> str | None:
        """The commit of a branch, of a commit's id, or None."""
        if revision in self._repos.get(repo, {}):
            return revision
        return self._refs.get(repo, {}).get(revision)

    def files(self, repo: str, revision: str) -> dict[str, bytes] | None:
        """The files of a revision, or None."""
        commit = self.commit(repo, revision)
        return None if commit is None else self._repos[repo][commit]

    def known(self, repo: str) -> bool:
        return repo in self._repos


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no error of the server's."""


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[HubServer]
    protocol_version = "HTTP/1.1"
    timeout = LONGEST_HANG

    def log_message(self, format: str, *args: object) -> None:
        """The log is `HubServer.log`."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.note(Request(self.command, path, dict(self.headers)))
        if self.hub.closing.is_set():
            self.close_connection = True
            return
        # A redirect is not where content goes wrong: faults of a large file's GET wait for its storage address.
        redirects = self.command == "GET" and "/resolve/" in path and path.endswith(LFS_SUFFIXES)
        fault = None if redirects else self.hub.fault(self.command, path)
        if fault and self._broken(fault):
            return
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            self._model("/".join(parts[2:4]), parts[4:])
        elif parts[0] == "storage" and len(parts) >= 5:
            self._storage("/".join(parts[1:3]), parts[3], "/".join(parts[4:]), fault)
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), fault)
        else:
            self._error(404, "", f"no route {path}")

    def _broken(self, fault: Fault) -> bool:
        """Answer wrongly where the fault replaces the whole answer."""
        if fault.kind == "status":
            self._error(fault.status, "", "injected", fault.headers)
        elif fault.kind == "portal":
            self._send(200, PORTAL, {"Content-Type": "text/html"})
        elif fault.kind == "hang":
            self.hub.closing.wait(LONGEST_HANG)
            self.close_connection = True
        else:
            return False
        return True

    def _found(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files, or the hub's error."""
        if not self.hub.known(repo):
            self._error(404, "RepoNotFound", "Repository not found")
        elif repo in self.hub.gated and "Authorization" not in self.headers:
            self._error(403, "GatedRepo", "Access to this model is restricted")
        elif (commit := self.hub.commit(repo, revision)) is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return commit, self.hub.files(repo, commit) or {}
        return None

    def _resolve(self, repo: str, revision: str, name: str, fault: Fault | None) -> None:
        if not (found := self._found(repo, revision)):
            return
        commit, files = found
        if name not in files:
            self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            return
        data = files[name]
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if name.endswith(LFS_SUFFIXES):
            size = fault.size if fault and fault.kind == "size" else len(data)
            headers["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
            headers["X-Linked-Size"] = str(size)
            headers["Location"] = f"http://localhost:{self.hub.port}/storage/{repo}/{commit}/{name}"
            self._send(302, b"", headers)
            return
        headers["ETag"] = f'"{hashlib.sha1(b"blob %d" % len(data) + bytes(1) + data).hexdigest()}"'
        self._content(data, headers, fault)

    def _storage(self, repo: str, commit: str, name: str, fault: Fault | None) -> None:
        files = self.hub.files(repo, commit) or {}
        if name not in files:
            self._error(404, "", "no such object")
        else:
            self._content(files[name], {"Accept-Ranges": "bytes"}, fault)

    def _content(self, data: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        status, kind = 200, fault.kind if fault else ""
        if kind == "flip":
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        elif kind == "short":
            data = data[: len(data) // 2]
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes=") and kind != "cut":
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last or len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            status, data = 206, data[start : end + 1]
        self._send(status, data, headers, cut=kind == "cut")

    def _model(self, repo: str, rest: list[str]) -> None:
        revision = rest[1] if rest[:1] in (["revision"], ["tree"]) and len(rest) > 1 else "main"
        if not (found := self._found(repo, revision)):
            return
        commit, files = found
        if rest[:1] == ["tree"]:
            answer: object = [_row(name, data) for name, data in sorted(files.items())]
        else:
            answer = {"id": repo, "modelId": repo, "sha": commit, "private": False, "gated": repo in self.hub.gated}
            answer["siblings"] = [{"rfilename": name} for name in sorted(files)]
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        named = {"X-Error-Code": code} if code else {}
        named |= {"X-Error-Message": message, "Content-Type": "application/json"}
        body = json.dumps({"error": message}).encode()
        self._send(
            status, body, {"X-Error-Message": message, "Content-Type": "application/json", **named, **(headers or {})}
        )

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True


def _row(name: str, data: bytes) -> dict[str, object]:
    row: dict[str, object] = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if name.endswith(LFS_SUFFIXES):
        row["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return row


def environment(server: HubServer, folder: Path) -> dict[str, str]:
    """What a process needs in its environment to use the server and nothing else."""
    return {
        "HF_ENDPOINT": server.url,
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "ZOO_CACHE": str(folder / "zoo"),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A running hub, with the environment pointing to it and to empty caches."""
    for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with HubServer() as server:
        for name, value in environment(server, tmp_path).items():
            monkeypatch.setenv(name, value)
        import huggingface_hub
        from huggingface_hub import constants

        # The client reads these when it is imported, which may have been before this fixture.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        huggingface_hub.close_session()  # its connections belong to another test's server
        yield server
        huggingface_hub.close_session()


def subprocess_environment(server: HubServer, folder: Path) -> dict[str, str]:
    """`environment` on top of this process's own, for a child process."""
    return {**os.environ, **environment(server, folder)}

"""A server on 127.0.0.1 with the part of the hub's API that fetching one repository needs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

SHA = "0123456789abcdef0123456789abcdef01234567"  # the commit of the served repository
LARGE = 10_000  # bytes; the downloads of larger files can be broken


@dataclass
class Hub:
    """How a repository is served, and a record of the downloads."""

    folder: Path
    url: str = ""
    token: str | None = None  # the only token that may read the files; None lets everybody read them
    cut: str = ""  # "once" breaks the first download of each large file half-way, "always" breaks every download
    fetched: list[str] = field(default_factory=list)  # the files that were requested from their first byte
    resumed: list[str] = field(default_factory=list)  # the files that were requested from a later byte


@contextlib.contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve `hub.folder` as the repository owner/name on a free port, and set `hub.url`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = unquote(urlparse(self.path).path).strip("/").split("/")
            if parts[:2] == ["api", "models"] and parts[2:4] == ["owner", "name"]:
                return self.api(parts[4:])
            if parts[:3] == ["owner", "name", "resolve"] and (hub.folder / "/".join(parts[4:])).is_file():
                return self.file("/".join(parts[4:]))
            return self.refuse(404, "EntryNotFound" if parts[:2] == ["owner", "name"] else "RepoNotFound")

        def api(self, rest: list[str]) -> None:
            if rest[:1] == ["revision"] and rest[1] not in ("main", SHA):
                return self.refuse(404, "RevisionNotFound")
            files = [path for path in sorted(hub.folder.rglob("*")) if path.is_file()]
            names = {path.relative_to(hub.folder).as_posix(): path.stat().st_size for path in files}
            if rest[:1] == ["tree"]:
                rows = [{"type": "file", "path": n, "size": s, "oid": etag(n)} for n, s in names.items()]
                return self.answer(json.dumps(rows).encode(), "application/json")
            siblings = [{"rfilename": name, "size": size, "blobId": etag(name)} for name, size in names.items()]
            about = {"id": "owner/name", "modelId": "owner/name", "sha": SHA, "private": False, "siblings": siblings}
            return self.answer(json.dumps(about | {"gated": bool(hub.token)}).encode(), "application/json")

        def file(self, name: str) -> None:
            if hub.token and self.headers.get("authorization") != f"Bearer {hub.token}":
                return self.refuse(401 if "authorization" not in self.headers else 403, "GatedRepo")
            data = (hub.folder / name).read_bytes()
            start = int((self.headers.get("range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            headers = {"etag": f'"{etag(name)}"', "x-repo-commit": SHA, "accept-ranges": "bytes"}
            if start:
                headers["content-range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            broken = self.command == "GET" and len(data) > LARGE
            broken = broken and (hub.cut == "always" or (hub.cut == "once" and name not in hub.fetched))
            if self.command == "GET":
                (hub.resumed if start else hub.fetched).append(name)
            self.answer(data[start:], "application/octet-stream", headers, 206 if start else 200, broken)

        def refuse(self, code: int, reason: str) -> None:
            self.answer(b"{}", "application/json", {"x-error-code": reason, "x-error-message": reason}, code)

        def answer(self, data: bytes, kind: str, headers: dict | None = None, code: int = 200, broken=False) -> None:
            self.send_response(code)
            for key, value in {"content-type": kind, "content-length": str(len(data)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data[: len(data) // 2] if broken else data)
            if broken:
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # A short interval, because `shutdown` waits for its end.
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """The environment of a process that uses `hub`, without a token and without this process's settings for the hub."""
    clean = {key: value for key, value in os.environ.items() if key not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
    return clean | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home)}


def etag(name: str) -> str:
    """The identifier of a version of a file."""
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()

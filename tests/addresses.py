"""A web server of strange addresses, on a free port of this machine: `with strange_addresses() as address: ...`.

/picture    a picture                        /broken    promises more than it sends
/missing    404                              /reset     hangs up in the middle
/elsewhere  redirects to /picture            /drip      a byte every tenth of a second, for ever
/round      redirects to itself              /never     takes the connection and says nothing
/file       redirects to file:///etc/passwd  /gzip      ten megabytes in ten kilobytes
/text       no picture                       /endless   zeros, without an end
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import io
import threading
import time
from collections.abc import Iterator

from PIL import Image

LONGEST = 90  # seconds that /drip and /never last
CODES = {"missing": 404, "elsewhere": 302, "round": 302, "file": 302, "bait": 302}
TARGETS = {"elsewhere": "/picture", "bait": "/picture", "round": "/round", "file": "file:///etc/passwd"}


def _png() -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "PNG")
    return file.getvalue()


PICTURE = _png()
GZIP = gzip.compress(bytes(10_000_000))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind = self.path[1:].partition("?")[0]
        if kind == "never":
            self.server.closed.wait(LONGEST)
            return
        body = {"text": b"no picture", "gzip": GZIP}.get(kind, PICTURE)
        self.send_response(CODES.get(kind, 200))
        if kind in TARGETS:
            self.send_header("Location", TARGETS[kind])
        if kind == "gzip":
            self.send_header("Content-Encoding", "gzip")
        if kind not in ("endless", "drip", "bait"):
            self.send_header("Content-Length", str(len(body) + (kind in ("broken", "reset"))))
        self.end_headers()
        if kind in ("endless", "bait"):
            while not self.server.closed.is_set():
                self.wfile.write(bytes(2**16))
        elif kind == "drip":
            end = time.monotonic() + LONGEST
            while time.monotonic() < end and not self.server.closed.wait(0.1):
                self.wfile.write(b"\0")
        else:
            self.wfile.write(body)

    do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def strange_addresses() -> Iterator[str]:
    """Run the server, and yield its address, http://127.0.0.1:PORT."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # clients hang up here
    server.closed = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.closed.set()
        server.shutdown()
        server.server_close()

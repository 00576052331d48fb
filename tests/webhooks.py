"""A receiver of webhooks on a free port of this machine: `with Receiver() as receiver: ...`."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver(ThreadingHTTPServer):
    """Takes webhooks on a free port. `events` has the path and the body of each."""

    def __init__(self) -> None:
        self.events = events = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                events.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def of(self, path: str) -> list[dict[str, Any]]:
        return [body for to, body in self.events if to == path]

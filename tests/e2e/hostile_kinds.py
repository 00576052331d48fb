"""Hostile requests by kind. Each kind is a function that makes one request and tells whether the server did right.

It takes the server, the address of `tests.addresses`, and the number of the request. KINDS cost the server nothing;
COSTLY ones cost Cog a slot each or end its server, so that the server starts again.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.error
import uuid
from collections.abc import Callable
from typing import Any

from tests.server import Server, to_uri

SMALL = {"prompt": "猫の肖像画 油絵", "width": 128, "height": 128, "num_inference_steps": 4, "seed": 7}
LONG = SMALL | {"num_inference_steps": 500}
NOWHERE = "http://127.0.0.1:1/cat.png"
SECONDS = 15  # longer than the answer to any of these takes

IDS = ("", ".", "a/b", "猫", "x" * 200, "%2e%2e%2f", "a\nb", " ", "-rf", "a//b", "'\"<b>")
BAD_IDS = ("a" * 300, "a\0b", "/proc/self/a", "猫" * 100)
BAD_PATHS = ("missing", "broken", "reset", "round", "file", "gzip", "text", "endless")
BAD_URIS = ("data:", "data:image/png;base64,a", "data:image/png;base64,AAAA", "file:///etc/passwd", "../x", NOWHERE)
# How a file of each kind begins, and a part that it may have.
PARTS = (
    (b"\xff\xd8", b"\xff\xed\0\2"),
    (b"\x89PNG\r\n\x1a\n", b"\0\0\0\0abCd\0\0\0\0"),
    (b"RIFF\0\0\0\0WEBP", b"EXIF\0\0\0\0"),
)
BODIES = (b"", b"[]", b"{", b"\xff\xfe", b"[" * 10_000, b'{"input": 5}', b'{"input": {"guidance_scale": NaN}}')
VALUES = ({"seed": -1}, {"seed": 2**64}, {"width": 0}, {"num_outputs": 9}, {"scheduler": ""}, {"seed": ""})


def odd_id(server: Server, address: str, number: int) -> bool:
    body = {"id": IDS[number % len(IDS)], "input": SMALL}
    return ended(server, body)["status"] == "succeeded"


def refused_value(server: Server, address: str, number: int) -> bool:
    return server.call("POST", "/predictions", {"input": VALUES[number % len(VALUES)]})[0] == 422


def broken_body(server: Server, address: str, number: int) -> bool:
    return 400 <= server.call("POST", "/predictions", BODIES[number % len(BODIES)])[0] < 500


def broken_file(server: Server, address: str, number: int) -> bool:
    name = ("image", "lora")[number // len(BAD_URIS) % 2]
    return failed(server, f"{name}: ", **{name: BAD_URIS[number % len(BAD_URIS)]})


def broken_address(server: Server, address: str, number: int) -> bool:
    return failed(server, "image: ", image=f"{address}/{BAD_PATHS[number % len(BAD_PATHS)]}")


def many_parts(server: Server, address: str, number: int) -> bool:
    """A picture has thousands of parts, or a million: each must cost little, whatever the kind of file."""
    large = number % 8 == 0
    begin, part = PARTS[(number // 8 if large else number) % len(PARTS)]
    return failed(server, "image: a file of more than", image=to_uri(begin + part * (1_000_000 if large else 20_000)))


def half_failed(server: Server, address: str, number: int) -> bool:
    """One picture is large and whole, the other can't be had."""
    large = to_uri(bytes(30_000_000 if number % 16 == 0 else 1_000_000))
    return failed(server, "mask: ", image=large, mask=f"{address}/missing" if number % 2 else NOWHERE)


def cancelled_address(server: Server, address: str, number: int) -> bool:
    """A cancel works at once while the picture is being fetched."""
    running = server.begin(**SMALL, image=f"{address}/{('drip', 'never')[number % 2]}")
    time.sleep(0.3)
    began = time.monotonic()
    while not running.ended and running.cancel() != 200 and time.monotonic() < began + SECONDS:
        time.sleep(0.05)
    return running.result()["status"] == "canceled" and time.monotonic() < began + SECONDS


def abandoned(server: Server, address: str, number: int) -> bool:
    """The client hangs up: in its head, in its body, while a picture is fetched, and while one is drawn."""
    body = json.dumps({"input": SMALL | {"image": f"{address}/drip"} if number % 2 else LONG}).encode()
    head = f"POST /predictions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    whole = head.encode() + b"\r\n\r\n" + body
    sent = (whole, whole, whole[:40], whole[:-20])[number % 4]
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as client:
        client.sendall(sent)
        time.sleep(0.2)
    return True


def odd_webhook(server: Server, address: str, number: int) -> bool:
    webhooks = ("", "x", NOWHERE, "ftp://127.0.0.1/", f"{address}/round", f"{address}/text", f"{address}/missing")
    body = {"input": SMALL, "webhook": webhooks[number % len(webhooks)], "webhook_events_filter": ["completed"]}
    return ended(server, body)["status"] == "succeeded"


def same_id(server: Server, address: str, number: int) -> bool:
    """A second prediction with the id of a running one. Cog draws both."""
    name = f"same-{uuid.uuid4().hex}"
    server.call(
        "PUT", f"/predictions/{name}", {"input": SMALL | {"num_inference_steps": 60}}, {"prefer": "respond-async"}
    )
    return ended(server, {"id": name, "input": SMALL})["status"] == "succeeded"


def lost_slot(server: Server, address: str, number: int) -> bool:
    """Cog can't make the prediction's folder. The server may be starting again meanwhile."""
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        code, answer = server.call("POST", "/predictions", {"id": BAD_IDS[number % len(BAD_IDS)], "input": SMALL})
        return code in (409, 503) or (code == 200 and answer["status"] == "failed")
    return True


def shut_down(server: Server, address: str, number: int) -> bool:
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        return server.call("POST", "/shutdown")[0] == 200
    return True


KINDS: tuple[Callable[[Server, str, int], bool], ...] = (
    refused_value,
    broken_body,
    broken_file,
    broken_address,
    many_parts,
    half_failed,
    odd_id,
    same_id,
    cancelled_address,
    abandoned,
    odd_webhook,
)
COSTLY: tuple[Callable[[Server, str, int], bool], ...] = (lost_slot, shut_down)


def ended(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    """Post a body until it is not answered with 409. Returns the answer, with the status "refused" if it is none."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        code, answer = server.call("POST", "/predictions", body)
        if code != 409:
            return answer if code == 200 else {"status": "refused"}
        time.sleep(0.01)
    return {"status": "busy"}


def failed(server: Server, reason: str, **inputs: Any) -> bool:
    answer = ended(server, {"input": SMALL | inputs})
    return answer["status"] == "failed" and reason in answer["error"]

"""Fetch the files that a request sends, pictures and adapters, as data URIs or addresses, with limits.

Cog would do this by itself, but without limits: an address may take any time and any space and can't be cancelled, and
files stay on the disk when a request fails (docs/cog-reports.md). Here nothing is written, and a cancelled prediction
closes its connections.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote_to_bytes

import httpx2

from jsd.errors import InputError, shown
from jsd.request import MAX_LORA

MAX_BYTES = 32 * 2**20  # of a picture that comes from an address; Cog's limit for a request is 100 MB
SECONDS = 60  # for an address, from the first byte to the last
STILL_SECONDS = 10  # for a connection, and between two of its bytes
REDIRECTS = 5
MAX_ESCAPED = 2**20  # characters of a data URI that is not base64: each takes a hundred times its size to decode
URLSAFE = bytes.maketrans(b"-_", b"+/")
ESCAPED = {b"%2B": b"+", b"%2F": b"/", b"%3D": b"=", b"%0D": b"", b"%0A": b"", b"%20": b""}
DECODERS = ThreadPoolExecutor(2, "jsd-decode")  # not asyncio's own threads, which wait for names of machines


async def fetch(name: str, uri: str, addresses: bool) -> bytes:
    """Return the bytes that a data URI holds, or those at an http(s) address, if `addresses` are allowed.

    Raises `InputError` about the input `name` if the URI is neither, can't be decoded or fetched, or passes a limit.
    """
    scheme = uri.partition(":")[0].lower()
    if scheme == "data":
        return await asyncio.get_running_loop().run_in_executor(DECODERS, decode, name, uri)
    if scheme not in ("http", "https"):
        raise InputError(name, "{} was given; a data URI or the address of a file is wanted", shown(uri))
    if not addresses:
        raise InputError(name, "this server fetches no addresses (JSD_INPUT_URLS=off); send the file as a data URI")
    return await _download(name, uri)


def decode(name: str, uri: str) -> bytes:
    """Return the bytes in a data URI (RFC 2397), with either alphabet of base64 (RFC 4648). Raises `InputError`."""
    head, comma, text = uri.partition(",")
    if not comma:
        raise InputError(name, "{} is no data URI: it has no comma", shown(uri))
    if not head.rstrip().lower().endswith(";base64"):
        if len(text) > MAX_ESCAPED:
            raise InputError(name, "a data URI of more than {} MB has to be base64", MAX_ESCAPED // 2**20)
        return unquote_to_bytes(text)
    with contextlib.suppress(ValueError):
        return base64.b64decode(text, validate=True)
    data = text.encode()
    for escaped, character in ESCAPED.items():
        data = data.replace(escaped, character).replace(escaped.lower(), character)
    data = data.translate(URLSAFE, b" \t\r\n").rstrip(b"=")
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except ValueError:
        raise InputError(name, "its base64 is broken; send the whole file as data:image/png;base64,...") from None


async def _download(name: str, address: str) -> bytes:
    # Without what may be secret: a key after the question mark, a password before the host.
    named = shown(re.sub(r"//[^/]*@", "//", address.partition("?")[0]))
    # A compressed answer could be a thousand times as large as what is sent.
    headers = {"accept-encoding": "identity"}
    if os.environ.get("COG_USER_AGENT"):
        headers["user-agent"] = os.environ["COG_USER_AGENT"]
    try:
        async with asyncio.timeout(SECONDS), httpx2.AsyncClient(timeout=STILL_SECONDS, headers=headers) as client:
            request = client.build_request("GET", address)
            # Not by the client itself: it would read what comes with a redirect, however much that is.
            for _ in range(REDIRECTS + 1):
                async with contextlib.aclosing(await client.send(request, stream=True)) as answer:
                    request = answer.next_request
                    if request is None:
                        return await _body(name, named, answer)
            raise InputError(name, "{} redirects more than {} times", named, REDIRECTS)
    except InputError:
        raise
    except TimeoutError:
        raise InputError(name, "{} took more than {} seconds", named, SECONDS) from None
    except Exception as error:  # noqa: BLE001  addresses are wrong in many ways, and so are servers
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        reason = shown(str(error) or type(error).__name__)
        raise InputError(name, "{} can't be fetched ({}); try a data URI", named, reason) from None


async def _body(name: str, named: str, answer: httpx2.Response) -> bytes:
    if answer.status_code != httpx2.codes.OK:
        raise InputError(
            name, "{} answers {} {}; a file is wanted", named, answer.status_code, shown(answer.reason_phrase)
        )
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise InputError(name, "{} sends compressed data, which is not read; try a data URI", named)
    data, most = bytearray(), MAX_LORA if name == "lora" else MAX_BYTES
    async for chunk in answer.aiter_raw():
        data += chunk
        if len(data) > most:
            raise InputError(name, "{} is larger than {} MB, the most that is fetched", named, most // 2**20)
    return bytes(data)

"""Pictures come from data URIs and addresses, within limits; what goes wrong is said by the input's name."""

import asyncio
import base64
import os
import time
from pathlib import Path

import pytest

from jsd.errors import InputError
from serving import pictures
from tests.addresses import PICTURE, strange_addresses

BYTES = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def address():
    with strange_addresses() as address:
        yield address


def fetch(uri: str, addresses: bool = True) -> bytes:
    return asyncio.run(pictures.fetch("image", uri, addresses))


def sockets() -> int:
    links = (os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink())
    return sum(link.startswith("socket:") for link in links)


@pytest.mark.parametrize(
    "uri",
    [
        "data:image/png;base64," + base64.b64encode(BYTES).decode(),
        "data:image/png;base64," + base64.urlsafe_b64encode(BYTES).decode().rstrip("="),
        "data:image/png;base64," + base64.encodebytes(BYTES).decode(),  # with line breaks
        "DATA:image/png;charset=x;BASE64," + base64.b64encode(BYTES).decode().replace("+", "%2B"),
        "data:image/png," + "".join(f"%{byte:02x}" for byte in BYTES),
    ],
)
def test_every_form_of_a_data_uri_is_read(uri):
    assert fetch(uri, addresses=False) == BYTES


def test_a_small_data_uri_without_a_type_is_read():
    assert fetch("data:,text") == b"text"


@pytest.mark.parametrize("path", ["picture", "elsewhere", "bait"])
def test_an_address_is_fetched(address, path):
    assert fetch(f"{address}/{path}") == PICTURE


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("data:image/png;base64", "has no comma"),
        ("data:image/png;base64,a", "its base64 is broken"),
        ("data:image/png;base64,猫", "its base64 is broken"),
        ("data:image/png;base64,AAAA!", "its base64 is broken"),
        ("data:," + "%00" * 400_000, "more than 1 MB has to be base64"),
        ("猫.png", "a data URI or the address of a file is wanted"),
        ("file:///etc/passwd", "a data URI or the address of a file is wanted"),
        ("ftp://127.0.0.1/cat.png", "a data URI or the address of a file is wanted"),
        ("http://", "can't be fetched"),
        ("http://127.0.0.1:99999/", "can't be fetched"),
        ("http://127.0.0.1:1/cat.png", "can't be fetched"),
        ("http://127.0.0.1\0/cat.png", "can't be fetched"),
        ("http://..../cat.png", "can't be fetched"),
        ("{}/missing", "answers 404 'Not Found'; a file is wanted"),
        ("{}/broken", "can't be fetched"),
        ("{}/reset", "can't be fetched"),
        ("{}/round", "redirects more than 5 times"),
        ("{}/file", "can't be fetched"),
        ("{}/gzip", "sends compressed data"),
    ],
)
def test_what_can_not_be_fetched_names_the_input_and_the_reason(address, uri, reason):
    before = sockets()
    with pytest.raises(InputError, match=f"^image: .*{reason}"):
        fetch(uri.format(address))
    deadline = time.monotonic() + 10
    while sockets() > before:  # the server's end, in this process, takes a moment
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_address_has_a_limit_of_size(address, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_BYTES", 2**20)
    with pytest.raises(InputError, match="is larger than 1 MB"):
        fetch(f"{address}/endless")


def test_an_address_has_a_limit_of_time(address, monkeypatch):
    monkeypatch.setattr(pictures, "SECONDS", 0.3)
    with pytest.raises(InputError, match=r"/drip' took more than 0.3 seconds"):
        fetch(f"{address}/drip?key=secret")


def test_a_cancel_closes_the_connection_at_once(address):
    async def cancel():
        task = asyncio.ensure_future(pictures.fetch("image", f"{address}/drip", True))
        await asyncio.sleep(0.3)
        before, began = sockets(), time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return before - sockets(), time.monotonic() - began

    closed, seconds = asyncio.run(cancel())
    assert closed >= 1
    assert seconds < 3


def test_a_key_in_an_address_is_not_repeated(address):
    with pytest.raises(InputError) as error:
        fetch(f"{address}/missing?key=secret".replace("//", "//me:secret@"))
    assert "secret" not in str(error.value)


def test_addresses_can_be_switched_off(address):
    with pytest.raises(InputError, match="JSD_INPUT_URLS=off.*data URI"):
        fetch(f"{address}/picture", addresses=False)

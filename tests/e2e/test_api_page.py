"""docs/api.md: its examples print what it says, and its table has the answers that the server gives.

The examples for other people's clients are run by test_clients.py.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.page import Example, alike, examples
from tests.server import ROOT, Server
from tests.webhooks import Receiver

PAGE = ROOT / "docs" / "api.md"
TEXT = PAGE.read_text("utf-8")
OF_CLIENTS = ("npm `replicate`", "Python `replicate`", "open", "@hey-api")  # headings of test_clients.py
EXAMPLES = [example for example in examples(PAGE) if not example.heading.startswith(OF_CLIENTS)]
ROWS = dict(re.findall(r"^\| (\d{3}) \| .+? \| (.+) \|$", TEXT, re.M))
PATTERNS = {int(code): [pattern for _, pattern in re.findall(r"(`+)(.+?)\1", body)] for code, body in ROWS.items()}
PROGRAMS = {"bash": ["bash", "-euc"], "python": [sys.executable, "-c"], "js": ["node", "--input-type=module", "-e"]}
LONG = {"prompt": "猫", "num_inference_steps": 500, "seed": 1}
NOTHING = {"input": {"num_outputs": 0}}  # asks for progress, and draws nothing
ASYNC = {"prefer": "respond-async"}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver
        receiver.shutdown()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e.heading}-{e.language}-{EXAMPLES.index(e)}")
def test_an_example_prints_what_the_page_says(example: Example, tiny_server, receiver, photo, tmp_path: Path):
    *program, option = PROGRAMS[example.language]
    for needed in [program[0], *(["curl"] if "curl" in example.code else [])]:
        if not shutil.which(needed):
            pytest.skip(f"{needed} is not here")
    photo.save(tmp_path / "cat.png")
    code = example.code.replace("http://127.0.0.1:5000", tiny_server.url)
    code = code.replace("8000", str(free_port() if "HTTPServer" in code else receiver.server_port))
    run = subprocess.run([*program, option, code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert example.output is not None
    assert alike(example.output, run.stdout), run.stdout


CASES = [  # code, method, path, body
    (200, "POST", "/predictions", {"input": {}}),
    (200, "POST", "/predictions", {"input": {"width": 65}}),
    (202, "POST", "/predictions", {"id": "api-202", "input": LONG}),
    (202, "PUT", "/predictions/api-202", NOTHING),
    (200, "POST", "/predictions/api-202/cancel", None),
    (404, "POST", "/predictions/api-nobody/cancel", None),
    (404, "GET", "/docs", None),
    (405, "GET", "/predictions", None),
    (405, "GET", "/predictions/api-202", None),
    (405, "OPTIONS", "/predictions", None),
    (400, "POST", "/predictions", b'{"input": {'),
    (406, "POST", "/predictions", {"input": {"seed": -1}}),
    (415, "POST", "/predictions", {"input": {}}),
    (422, "POST", "/predictions", {"input": {"seed": -1}}),
    (422, "PUT", "/predictions/api-422", {"id": "other", "input": {}}),
    (422, "POST", "/predictions", {"input": {}, "webhook_events_filter": "completed"}),
    (413, "POST", "/predictions", b" " * (100 * 2**20 + 1)),
]


def ask(server: Server, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    """Make one HTTP call. Returns the code and the body as text, also when the server hangs up before the end."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, content, {"content-type": "application/json"} | headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    assert not [name for name, _ in answer.getheaders() if name.lower().startswith("access-control")]
    connection.close()
    return answer.status, text


def belongs(code: int, text: str) -> bool:
    return any(alike(pattern, text) for pattern in PATTERNS[code])


def canceled_answer(server: Server) -> str:
    """Cancel a prediction after some steps. Returns the body of the answer to the client that waits."""
    path = "/predictions/api-canceled"
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(ask, server, "PUT", path, {"input": LONG})
        server.wait("progress", lambda: "/500 [" in ask(server, "PUT", path, NOTHING)[1], 10)
        assert ask(server, "POST", f"{path}/cancel")[0] == 200
        return waiting.result()[1]


def test_the_answers_are_those_of_the_table(tiny_server):
    seen: dict[int, list[str]] = {200: [canceled_answer(tiny_server)]}
    unusual = {202: ASYNC, 406: {"accept": "text/event-stream"}, 415: {"content-type": "text/plain"}}
    for code, method, path, body in CASES:
        headers = unusual.get(code, {})
        if (method, path) == ("PUT", "/predictions/api-202"):
            time.sleep(0.2)  # for a moment it is "starting", and Cog loses cancels
        got, text = ask(tiny_server, method, path, body, **headers)
        assert got == code, (method, path, text)
        assert belongs(code, text) if text else code in (404, 405), (code, text)
        seen.setdefault(code, []).append(text)
    assert set(seen) | {409, 503} == set(PATTERNS)
    for code, texts in seen.items():
        for pattern in PATTERNS[code]:
            if pattern.startswith(("{", "Failed", "Expected")):  # the others are not bodies
                assert any(alike(pattern, text) for text in texts), (code, pattern)


def test_the_table_has_the_codes_of_the_document(tiny_server):
    document = json.loads(ask(tiny_server, "GET", "/openapi.json")[1])
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    documented = {int(code) for operation in operations for code in operation["responses"]}
    assert documented | {405} == set(PATTERNS)


def test_409_comes_when_all_slots_are_busy_and_422_even_then(tiny_server):
    taken = 0
    try:
        while (answer := ask(tiny_server, "PUT", f"/predictions/api-{taken}", {"input": LONG}, **ASYNC))[0] == 202:
            taken += 1
        assert answer[0] == 409
        assert belongs(*answer)
        assert tiny_server.status() == "BUSY"
        assert ask(tiny_server, "POST", "/predictions", {"input": {"seed": -1}})[0] == 422
        assert ask(tiny_server, "POST", "/predictions", {"input": {}}, accept="text/event-stream")[0] == 406
    finally:
        for number in range(taken):
            ask(tiny_server, "POST", f"/predictions/api-{number}/cancel")
        tiny_server.wait("free slots", lambda: tiny_server.status() == "READY")
    assert 1 <= taken <= 32


def test_503_comes_when_the_setup_has_failed(start):
    broken = start(JSD_DTYPE="fp8")
    not_allowed = {"input": {"seed": -1}}
    for call in [
        ("POST", "/predictions", {"input": {}}),
        ("POST", "/predictions", not_allowed),
        ("GET", "/openapi.json"),
    ]:
        code, text = ask(broken, *call)
        assert code == 503
        assert belongs(code, text), text
    assert broken.status() == "SETUP_FAILED"


def test_a_server_that_has_lost_slots_says_so_in_the_words_of_the_page(start, tiny_folder, receiver):
    (reason,) = re.findall(r"`(Healthcheck failed: [^`]+)`", TEXT)
    reason = " ".join(reason.split())
    server = start(JSD_WEIGHTS=str(tiny_folder), JSD_MAX_BATCH="8")  # one that no other test uses
    path = "/predictions/api-last"
    assert ask(server, "PUT", path, {"input": LONG | {"width": 256, "height": 256}}, **ASYNC)[0] == 202
    server.wait("progress", lambda: "/500 [" in ask(server, "PUT", path, NOTHING)[1], 10)
    for _ in range(3):
        assert ask(server, "POST", "/predictions", {"id": "a\0b", "input": {}})[0] == 200
    server.wait("the loss", lambda: server.status() == "UNHEALTHY", 10)
    assert server.health()["user_healthcheck_error"] == reason
    code, text = ask(server, "POST", "/predictions", {"input": {}})
    assert (code, json.loads(text)["status"]) == (200, "failed")
    assert reason.removeprefix("Healthcheck failed: ") in text
    body = {"input": {}, "webhook": f"http://127.0.0.1:{receiver.server_port}/lost"}
    assert ask(server, "POST", "/predictions", body, **ASYNC)[0] == 202
    server.wait("the webhook", lambda: [e for e in receiver.of("/lost") if e["status"] == "failed"], 10)


@pytest.mark.parametrize("name", ["image", "mask", "lora", "negative_prompt"])
def test_these_inputs_may_be_empty_but_not_null(tiny_server, name):
    code, text = ask(tiny_server, "POST", "/predictions", {"input": {name: ""}})
    assert (code, json.loads(text)["status"]) == (200, "succeeded")
    assert ask(tiny_server, "POST", "/predictions", {"input": {name: None}})[0] == 422


@pytest.mark.parametrize("prefer", ["respond-async, wait=5", "Respond-Async", "wait=5"])
def test_another_prefer_header_waits_for_the_picture(tiny_server, prefer):
    assert ask(tiny_server, "POST", "/predictions", {"input": {}}, prefer=prefer)[0] == 200


def test_webhooks_have_the_events_and_the_bodies_of_the_page(tiny_server, receiver):
    body = {"input": LONG | {"num_inference_steps": 200}, "webhook": f"http://127.0.0.1:{receiver.server_port}/all"}
    assert ask(tiny_server, "POST", "/predictions", body)[0] == 200
    tiny_server.wait("both with pictures", lambda: len([e for e in receiver.of("/all") if "output" in e]) == 2, 10)
    events = receiver.of("/all")
    assert all({"id", "status", "logs", "metrics"} == set(event) - {"output"} for event in events)
    assert (events[0]["status"], events[0]["logs"]) == ("processing", "")
    assert sorted(event["status"] for event in events if "output" in event) == ["processing", "succeeded"]
    assert any("/200 [" in event["logs"] and "output" not in event for event in events)
    failing = {"input": {"width": 65}, "webhook": body["webhook"].replace("all", "failing")}
    assert ask(tiny_server, "POST", "/predictions", failing)[0] == 200
    tiny_server.wait("both webhooks", lambda: len(receiver.of("/failing")) == 2, 10)
    failed, begun = sorted(receiver.of("/failing"), key=lambda event: event["status"])  # they may overtake each other
    assert (failed["status"], begun["status"]) == ("failed", "processing")
    assert "width: 65" in failed["error"]


def test_an_input_that_is_not_allowed_asks_for_progress_and_starts_nothing(tiny_server):
    path = "/predictions/api-progress"
    assert ask(tiny_server, "PUT", path, NOTHING)[0] == 422
    assert ask(tiny_server, "PUT", path, {"input": LONG}, **ASYNC)[0] == 202
    tiny_server.wait("progress", lambda: "/500 [" in ask(tiny_server, "PUT", path, NOTHING)[1], 10)
    assert ask(tiny_server, "POST", f"{path}/cancel")[0] == 200
    tiny_server.wait("the end", lambda: ask(tiny_server, "PUT", path, NOTHING)[0] == 422, 10)

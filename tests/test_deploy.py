"""The compose file and the proxy's rules, as far as they can be checked without Docker."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROXY = (ROOT / "deploy" / "proxy.conf").read_text()


@pytest.fixture(scope="module")
def service() -> dict:
    return yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["jsd"]


def test_the_server_is_no_root_and_can_write_to_its_temporary_folder_only(service):
    assert not service["user"].startswith("0")
    assert service["read_only"] is True
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    assert service["cap_drop"] == ["ALL"]
    assert service["mem_limit"]


def test_one_that_can_not_draw_is_started_again(service):
    command, script, *arguments = service["healthcheck"]["test"]
    assert command == "CMD"
    assert (ROOT / Path(script).relative_to("/src")).stat().st_mode & 0o111
    assert arguments == ["--end", "1"]
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/predictions/abc-DEF_123", True),
        ("/predictions/abc/cancel", True),
        ("/predictions/..", False),
        ("/predictions/../../x", False),
        ("/predictions/a/b", False),
        ("/predictions/" + "a" * 65, False),
        ("/predictions/a\n", False),
        ("/predictions/a/cancel\n", False),
        ("/shutdown", False),
    ],
)
def test_the_proxy_lets_only_harmless_ids_through(path, allowed):
    patterns = re.findall(r'location ~ "(.*)"', PROXY)
    assert len(patterns) == 2
    # As PCRE spells them, but for the names of Python.
    python = [pattern.replace(r"\z", r"\Z").replace("(?<", "(?P<") for pattern in patterns]
    assert any(re.search(pattern, path) for pattern in python) == allowed


def test_the_proxy_hands_on_no_path_as_it_came():
    """nginx matches the decoded path, but would hand on the other one: what was matched is spelt out instead."""
    targets = re.findall(r"proxy_pass http://jsd(.*?);", PROXY)
    assert targets == [
        "/health-check",
        "/openapi.json",
        "/predictions/$request_id",
        "/predictions/$id",
        "/predictions/$id/cancel",
    ]
    assert re.search(r"location / \{ return 404; \}", PROXY)

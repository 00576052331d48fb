"""The compose file and the rules of the proxy, as far as they can be checked without Docker."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROXY = (ROOT / "deploy" / "proxy.conf").read_text()


@pytest.fixture(scope="module")
def service() -> dict:
    return yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["jsd"]


def test_the_server_is_not_root_and_writes_only_to_its_temporary_folder(service):
    assert not service["user"].startswith("0")
    assert service["read_only"] is True
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    assert service["cap_drop"] == ["ALL"]
    assert service["mem_limit"]


def test_a_server_that_can_not_draw_is_started_again(service):
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
    # nginx uses PCRE, which differs from Python in two notations.
    python = [pattern.replace(r"\z", r"\Z").replace("(?<", "(?P<") for pattern in patterns]
    assert any(re.search(pattern, path) for pattern in python) == allowed


def test_the_proxy_builds_every_path_from_the_matched_parts():
    """nginx matches the decoded path, but it would pass on the original one."""
    targets = re.findall(r"proxy_pass http://jsd(.*?);", PROXY)
    assert targets == [
        "/health-check",
        "/openapi.json",
        "/predictions/$request_id",
        "/predictions/$id",
        "/predictions/$id/cancel",
    ]
    assert re.search(r"location / \{ return 404; \}", PROXY)


def test_a_post_through_the_proxy_can_not_name_a_running_prediction():
    """It becomes a PUT under a new id. Cog refuses an id in its body: tests/e2e/test_hostile.py."""
    (block,) = re.findall(r"location = /predictions \{\n(.*?)\n    \}", PROXY, re.DOTALL)
    assert "proxy_method PUT;" in block
    assert "proxy_pass http://jsd/predictions/$request_id;" in block


def test_the_proxy_takes_smaller_bodies_than_cog():
    (megabytes,) = re.findall(r"client_max_body_size (\d+)m;", PROXY)
    assert int(megabytes) < 100

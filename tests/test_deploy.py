"""cog.yaml and the compose file, as far as they can be checked without Docker. The proxy: tests/e2e/test_proxy.py."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "deploy" / "compose.yaml"
COG = yaml.safe_load((ROOT / "cog.yaml").read_text())
PROXY = (ROOT / "deploy" / "proxy.conf").read_text()


@pytest.fixture(scope="module")
def services() -> dict:
    return yaml.safe_load(COMPOSE.read_text())["services"]


@pytest.fixture(scope="module")
def service(services) -> dict:
    return services["jsd"]


def test_the_compose_file_is_one_by_the_compose_specification():
    check = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_the_compose_file_names_exists(services):
    networks = yaml.safe_load(COMPOSE.read_text())["networks"]
    for name, service in services.items():
        assert set(service["networks"]) <= networks.keys()
        assert set(service.get("depends_on", [])) <= services.keys() - {name}
        for volume in service["volumes"]:
            assert (COMPOSE.parent / volume.partition(":")[0]).exists(), volume


def test_the_proxy_asks_for_the_server_by_the_name_of_its_service_and_listens_where_it_is_published(services):
    assert re.findall(r"http://([a-z]+):5000", PROXY) == ["jsd"]
    assert services["proxy"]["ports"] == [f"127.0.0.1:8080:{re.search(r'listen ([0-9]+);', PROXY)[1]}"]


def test_only_the_proxy_can_reach_the_server(services):
    assert "ports" not in services["jsd"]
    assert services["jsd"]["networks"] == ["inside"]
    assert yaml.safe_load(COMPOSE.read_text())["networks"]["inside"] == {"internal": True}


def test_cog_builds_for_a_gpu_and_the_image_says_so():
    assert COG["build"]["gpu"] is True
    assert "JSD_BUILT_FOR=cuda" in COG["environment"]


def test_the_driver_that_is_asked_for_is_the_same_everywhere():
    """CUDA 13.0 needs the driver 580.65 at least: so say the release notes of the CUDA Toolkit."""
    assert COG["build"]["cuda"] == "13.0"
    for file in ("cog.yaml", "jsd/settings.py", "README.md", "README.ja.md", "docs/operate.md"):
        assert "580.65" in (ROOT / file).read_text("utf-8"), file


@pytest.mark.parametrize(("name", "writable"), [("jsd", ["/tmp"]), ("proxy", ["/run", "/var/cache/nginx"])])
def test_a_service_is_not_root_has_limits_and_writes_only_to_its_temporary_folders(services, name, writable):
    service = services[name]
    assert not service["user"].startswith("0")
    assert service["read_only"] is True
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == writable
    assert all("size=" in mount for mount in service["tmpfs"])
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


def test_a_server_that_can_not_draw_is_started_again(service):
    command, script, *arguments = service["healthcheck"]["test"]
    assert command == "CMD"
    assert (ROOT / Path(script).relative_to("/src")).stat().st_mode & 0o111
    assert arguments == ["--end", "1"]
    assert service["restart"] == "unless-stopped"

"""Prometheus reads the engine's figures on a port of their own."""

from __future__ import annotations

import socket
import time
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

import predict
from jsd import model, safety, settings
from jsd.engine import Engine
from jsd.errors import NSFWError, SettingError
from serving.metrics import Metrics
from tests.adapters import adapter
from tests.engine.conftest import CAT, SECONDS, TWELVE, hold
from tests.fakes import SpyUNet


@pytest.fixture
def address():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()


@pytest.fixture
def engine(tiny_folder):
    components = model.load(tiny_folder)
    with Engine(replace(components, unet=SpyUNet(components.unet)), max_batch_rows=4) as engine:
        yield engine


@pytest.fixture
def figures(engine, address):
    """A function that reads all figures over HTTP: values by name, with the label's value after a blank."""
    metrics = Metrics(engine, address)

    def read() -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/metrics", timeout=SECONDS) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        samples = [sample for family in families for sample in family.samples]
        return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}

    yield read
    metrics.close()


def wait_for(figures, name, value):
    """Read the figures until the one called `name` has this value. Returns them."""
    end = time.monotonic() + SECONDS
    while figures().get(name) != value:
        assert time.monotonic() < end, figures()
        time.sleep(0.01)
    return figures()


def test_the_queue_the_steps_and_what_ended_are_counted(engine, figures, monkeypatch):
    assert wait_for(figures, "jsd_requests_total failed", 0)["jsd_pictures_total"] == 0
    monkeypatch.setattr(safety, "check", lambda checker, processor, pixels: [False] + [True] * (len(pixels) - 1))
    spy = hold(engine)
    drawn = engine.submit(replace(CAT, num_outputs=2))
    assert spy.inside.wait(SECONDS)
    waiting = engine.submit(TWELVE)
    during = figures()
    assert (during["jsd_waiting_requests"], during["jsd_running_requests"]) == (1, 1)
    assert waiting.cancel()
    spy.gate.set()
    drawn.result(SECONDS)
    after = wait_for(figures, "jsd_requests_total succeeded", 1)
    assert (after["jsd_ticks_total"], after["jsd_tick_rows_total"]) == (4, 16)
    assert (after["jsd_pictures_total"], after["jsd_flagged_pictures_total"]) == (1, 1)
    assert (after["jsd_requests_total canceled"], after["jsd_waiting_requests"]) == (1, 0)
    for phase in ("queue", "text", "denoise", "decode", "safety"):
        assert after[f"jsd_phase_seconds_count {phase}"] == 1
        assert after[f"jsd_phase_seconds_sum {phase}"] == drawn.result().timings[phase]


def test_failures_are_counted_by_the_kind_of_error(engine, figures, monkeypatch):
    monkeypatch.setattr(safety, "check", lambda checker, processor, pixels: [True] * len(pixels))
    with pytest.raises(NSFWError):
        engine.submit(replace(CAT, num_outputs=2)).result(SECONDS)
    after = wait_for(figures, "jsd_failed_requests_total NSFWError", 1)
    assert (after["jsd_requests_total failed"], after["jsd_flagged_pictures_total"]) == (1, 2)


def test_switches_of_adapters_are_counted(engine, figures, components):
    engine.submit(replace(CAT, lora=adapter(components))).result(SECONDS)
    assert figures()["jsd_adapter_switches_total"] == 2  # the text encoder and the UNet
    assert figures()["jsd_adapter_switch_seconds_total"] > 0


def test_the_server_has_metrics_where_the_setting_says(tiny_folder, monkeypatch, address):
    for name, value in (("WEIGHTS", tiny_folder), ("DEVICE", "cpu"), ("METRICS_PORT", address[1])):
        monkeypatch.setenv(f"JSD_{name}", str(value))
    predictor = predict.Predictor()
    predictor.setup()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/metrics", timeout=SECONDS) as answer:
            assert b"jsd_waiting_requests 0.0" in answer.read()
    finally:
        predictor.metrics.close()
        predictor.engine.close()
        predictor.folders.close()
        predictor.slots.close()


def test_a_port_that_is_taken_is_a_wrong_setting(engine):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match=f"JSD_METRICS_PORT: can't listen on 127.0.0.1:{port}"):
            Metrics(engine, ("127.0.0.1", port))


@pytest.mark.parametrize(
    ("text", "address"),
    [("", None), ("9400", ("127.0.0.1", 9400)), ("0.0.0.0:1", ("0.0.0.0", 1)), ("[::]:65535", ("::", 65535))],
)
def test_the_setting_is_a_port_perhaps_after_an_address(monkeypatch, text, address):
    monkeypatch.setenv("JSD_METRICS_PORT", text)
    assert settings.metrics_address() == address


@pytest.mark.parametrize("text", ["0", "65536", "-1", "many", "127.0.0.1:", "9" * 5000])
def test_a_wrong_port_is_refused_by_name(monkeypatch, text):
    monkeypatch.setenv("JSD_METRICS_PORT", text)
    with pytest.raises(SettingError, match="JSD_METRICS_PORT: .* a port"):
        settings.metrics_address()

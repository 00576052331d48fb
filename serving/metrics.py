"""Figures about the engine for Prometheus, on a port of their own: `curl http://127.0.0.1:9400/metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, Summary, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from jsd.engine import Engine
from jsd.errors import NSFWError, SettingError
from jsd.request import Request
from jsd.result import Result


class Metrics:
    """Counts the requests of an engine that end, and serves that and the engine's state over HTTP."""

    def __init__(self, engine: Engine, address: tuple[str, int]):
        """Listen on `address`, a host and a port. Raises `SettingError` if that can't be done."""
        self._engine = engine
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(self)
        own = {"registry": registry, "namespace": "jsd"}
        self._requests = Counter("requests", "Requests that ended", ["outcome"], **own)
        self._failed = Counter("failed_requests", "Requests that failed, by the kind of error", ["error"], **own)
        self._pictures = Counter("pictures", "Pictures that were drawn and may be shown", **own)
        self._flagged = Counter("flagged_pictures", "Pictures that the safety checker held back", **own)
        self._seconds = Summary("phase_seconds", "Seconds of a request by phase", ["phase"], **own)
        for outcome in ("succeeded", "failed", "canceled"):
            self._requests.labels(outcome)  # so that it is 0 at first, instead of missing
        try:
            self.server, self._thread = start_http_server(address[1], address[0], registry)
        except OSError as error:
            raise SettingError("JSD_METRICS_PORT: can't listen on {}:{} ({})", address[0], address[1], error) from error
        engine.on_end = self._count

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def collect(self) -> Iterator[Metric]:
        """Yield the engine's state, as prometheus_client asks for it at every scrape."""
        engine, adapters = self._engine, self._engine.components.adapters
        for name, text, value in (
            ("waiting_requests", "Requests in the queue", engine.waiting),
            ("running_requests", "Requests being denoised or decoded", engine.running),
            ("undecoded_pictures", "Pictures that are denoised and wait for decoding", engine.undecoded),
        ):
            yield GaugeMetricFamily(f"jsd_{name}", text, value)
        for name, text, value in (
            ("ticks", "Steps of the UNet", engine.ticks),
            ("tick_rows", "Rows (samples) of these steps together", engine.ticked_rows),
            ("adapter_switches", "Changes of the adapter in the UNet or the text encoder", adapters.switches),
            ("adapter_switch_seconds", "Seconds of these changes together", adapters.seconds),
        ):
            yield CounterMetricFamily(f"jsd_{name}", text, value)

    def _count(self, request: Request, future: Future[Result]) -> None:
        """Count a request that has ended. Runs on any thread."""
        if future.cancelled():
            self._requests.labels("canceled").inc()
        elif error := future.exception():
            self._requests.labels("failed").inc()
            self._failed.labels(type(error).__name__).inc()
            if isinstance(error, NSFWError):  # all of them
                self._flagged.inc(request.num_outputs)
        else:
            result = future.result()
            self._requests.labels("succeeded").inc()
            self._pictures.inc(len(result.images))
            self._flagged.inc(result.flagged)
            for phase, seconds in result.timings.items():
                self._seconds.labels(phase).observe(seconds)

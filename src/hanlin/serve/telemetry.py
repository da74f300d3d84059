"""What the server counts, for Prometheus: names of routes and models, statuses and numbers; no client's text.

    Guard ── requests, seconds ──┐
    api ──── tokens, first ──────┼─> a registry of its own ─> GET /metrics
    Worker ─ running, waiting ───┘

What a client makes up (paths, model names, methods) is "other", so that no one can grow the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from hanlin.serve.worker import Load

TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"
TOKEN_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)  # bounds of the histograms, seconds
FIRST_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
REQUEST_S = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)


class Telemetry:
    """The counters of one server."""

    def __init__(self, models: Collection[str], load: Callable[[], Load]) -> None:
        """Start at zero; `load` is asked whenever the numbers are read."""
        self.registry = CollectorRegistry()
        self.models = frozenset(models)
        into, model = self.registry, ("model",)
        said = "Requests answered; status 499 where the client left first."
        self.requests = Counter("hanlin_requests", said, ("route", "model", "status"), registry=into)
        self.seconds = Histogram(
            "hanlin_request_seconds", "Whole requests.", ("route",), registry=into, buckets=REQUEST_S
        )
        self.prompt = Counter("hanlin_prompt_tokens", "Tokens read.", model, registry=into)
        self.completion = Counter("hanlin_completion_tokens", "Tokens written.", model, registry=into)
        self.first = Histogram("hanlin_first_token_seconds", "First tokens.", model, registry=into, buckets=FIRST_S)
        self.each = Histogram("hanlin_token_seconds", "Each token after it.", model, registry=into, buckets=TOKEN_S)
        self.cancelled = Counter("hanlin_cancelled", "Requests whose answers did not end.", model, registry=into)
        running = Gauge("hanlin_running", "Answers being written.", registry=into)
        waiting = Gauge("hanlin_waiting", "Requests in the queue.", registry=into)
        running.set_function(lambda: load().running)
        waiting.set_function(lambda: load().waiting)

    def request(self, scope: Mapping[str, Any], status: int, seconds: float) -> None:
        """Count one request that has ended."""
        route = getattr(scope.get("route"), "path", OTHER)
        model = scope.get("hanlin.model", "")
        known = model if model in self.models else OTHER if model else ""
        self.requests.labels(route, known, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all numbers as Prometheus reads them."""
        return generate_latest(self.registry)


class Meter:
    """What one request does to the counters of its model."""

    def __init__(self, telemetry: Telemetry, model: str, prompt_tokens: int) -> None:
        """Start the clock."""
        self.telemetry = telemetry
        self.model = model
        self.prompt_tokens = prompt_tokens
        self.began = time.perf_counter()
        self.first: float | None = None  # when the first token came
        self.last = self.began
        self.tokens = 0
        self.ended = False  # every answer came to its end

    def wrote(self, tokens: int) -> None:
        """Count tokens that have just come."""
        self.last = time.perf_counter()
        if self.first is None:
            self.first = self.last
        self.tokens += tokens

    def close(self) -> None:
        """Enter the request into the counters, as cancelled where it has not ended."""
        to = self.telemetry
        to.prompt.labels(self.model).inc(self.prompt_tokens)
        to.completion.labels(self.model).inc(self.tokens)
        if self.first is not None:
            to.first.labels(self.model).observe(self.first - self.began)
            if self.tokens > 1:
                to.each.labels(self.model).observe((self.last - self.first) / (self.tokens - 1))
        if not self.ended:
            to.cancelled.labels(self.model).inc()

"""Prometheus metrics, in a registry of this service's own.

What is noted with every event, request or call finds its series in a dict (`Kept`), since a look-up by labels costs
more than to count. What is measured when somebody asks is in services/readings.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, generate_latest

from services.ledger import Call

MOST_LABELS = 50
MOST_ROUTES = 1_000
OTHER = "other"
_FAST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
_SLOW = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 90)
_REQUEST = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)
# Told as 0 before they first happen, since a counter that begins at 1 has not risen for Prometheus.
_OUTCOMES = ("triggered", "untriggered", "duplicate", "delivered", "suppressed", "expired", "failed", "undeliverable")
_CLASSES = ("", "1xx", "2xx", "3xx", "4xx", "5xx")

Metric = TypeVar("Metric", Counter, Gauge, Histogram)
Labels = str | tuple[str, ...]


class Kept(dict[Labels, Metric]):
    """A metric's series by their labels, each looked up once; beyond `most` of them all others are `other`."""

    def __init__(self, metric: Metric, most: int = MOST_LABELS, known: Iterable[Labels] = ()) -> None:
        super().__init__()
        self._metric: Metric = metric
        self._most = most
        for labels in known:
            self[labels]

    def __missing__(self, labels: Labels) -> Metric:
        parts = (labels,) if isinstance(labels, str) else labels
        if len(self) >= self._most:
            return self._series([OTHER] * len(parts))
        series = self[labels] = self._series(parts)
        return series

    def _series(self, labels: Iterable[str]) -> Metric:
        series: Metric = self._metric.labels(*labels)
        return series


class Metrics:
    """Times are in seconds, as Prometheus wants them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._make_traffic()
        self._make_models()
        self._make_states()

    def _make_traffic(self) -> None:
        self.events = Kept(self._counter("events_total", "Events by what became of them.", "outcome"), known=_OUTCOMES)
        self.triggers = Kept(self._counter("triggers_total", "Events that triggered.", "type"))
        self.outcomes = Kept(
            self._counter("outcomes_total", "Last states of interactions by trigger.", "trigger", "state")
        )
        self.ack = self._histogram("ack_seconds", "From an event's arrival to its ACK.", _FAST)
        self.whole_way = Kept(
            self._histogram("interaction_seconds", "From receipt to the last state.", _SLOW, "state"),
            known=("delivered",),
        )
        self.requests = Kept(
            self._histogram(
                "request_seconds", "HTTP requests by their route.", _REQUEST, "endpoint", "method", "status"
            ),
            MOST_ROUTES,
        )
        self.deliveries = Kept(
            self._histogram(
                "delivery_seconds", "One offer of a reply to the router: `ok`, or why not.", _FAST, "result"
            ),
            known=("ok",),
        )
        self.answers = Kept(
            self._counter(
                "cached_answers_total",
                "Questions that may have been answered already, by whether they were (hit or miss).",
                "result",
            ),
            known=("hit", "miss"),
        )
        self.in_flight = self._gauge("interactions_in_flight", "Being answered now.")

    def _make_models(self) -> None:
        self.provider = Kept(
            self._histogram("provider_seconds", "One call of a model, tries one by one.", _SLOW, "provider", "result"),
            MOST_LABELS * 2,
        )
        self.retries = Kept(self._counter("provider_retries_total", "Tries after the first.", "provider"))
        model = "provider", "model"
        calls = self._counter("model_calls_total", "Calls, tries together, by how they ended.", *model, "result")
        self.calls = Kept(calls, MOST_LABELS * 10)
        self.tokens = Kept(
            self._counter("tokens_total", "Tokens of prompts and completions.", *model, "kind"), MOST_LABELS * 2
        )
        self.cost = Kept(self._counter("cost_dollars_total", "US dollars, where prices are known.", *model))
        self.degraded = Kept(
            self._gauge("provider_degraded", "Whether a model fails too often or is too slow.", *model)
        )

    def _make_states(self) -> None:
        states = ["closed", "open", "half_open"]
        registry = self.registry
        self.router_breaker = Enum(
            "sidecast_router_breaker", "Whether the router is asked.", states=states, registry=registry
        )
        self.provider_breaker = Enum(
            "sidecast_provider_breaker", "Whether a provider is asked.", ["provider"], states=states, registry=registry
        )
        self.queue_depth = self._gauge("queue_depth", "Interactions that wait in PostgreSQL, of all instances.")
        self.queue_oldest = self._gauge("queue_oldest_seconds", "How long the oldest of them has waited.")
        self.database_up = self._gauge("database_up", "Whether PostgreSQL answered when last asked.")
        self.pool_size = self._gauge("database_pool_size", "Connections to PostgreSQL that are open.")
        self.pool_idle = self._gauge("database_pool_idle", "Of those, the ones that nobody uses.")
        self.pool_limit = self._gauge("database_pool_limit", "As many as there may be.")
        self.valkey_away = self._gauge("valkey_away", "Whether Valkey is set and does not answer.")
        self.loop_lag = self._histogram("loop_lag_seconds", "How late the event loop is, asked each second.", _FAST)

    def note_request(self, endpoint: str | None, method: str, status: int, seconds: float) -> None:
        """A request that was answered; `endpoint` is its route's rule, None where there is none."""
        labels = (endpoint, method) if endpoint else (OTHER, OTHER)
        self.requests[*labels, _CLASSES[status // 100]].observe(seconds)

    def note_end(self, trigger: str, state: str, seconds: float) -> None:
        """The last state of an interaction, and what it took since receipt."""
        self.events[state].inc()
        self.outcomes[trigger, state].inc()
        self.whole_way[state].observe(seconds)

    def note_gathered(self, trigger: str, others: int) -> None:
        """So many interactions that another one stands for."""
        self.events["suppressed"].inc(others)
        self.outcomes[trigger, "suppressed"].inc(others)

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"sidecast_{name}", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"sidecast_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"sidecast_{name}", about, labels, buckets=buckets, registry=self.registry)


class ModelMetrics:
    """Calls, tokens and cost of each model of the service's own chain; of other models with its keys, together.

    What communities ask with keys of their own is theirs and not in it.
    """

    def __init__(self, metrics: Metrics, models: Iterable[tuple[str, str]]) -> None:
        self._metrics = metrics
        self._named = frozenset(list(models)[:MOST_LABELS])

    def note(self, call: Call, cost: float | None) -> None:
        """A call that ended; what was not asked of a model is none."""
        if call.own or not call.asks_a_model:
            return
        model = call.provider, call.asked or call.model
        provider, name = model if model in self._named else (call.provider, OTHER)
        metrics, usage = self._metrics, call.usage
        metrics.calls[provider, name, call.result].inc()
        if usage.prompt_tokens:
            metrics.tokens[provider, name, "prompt"].inc(usage.prompt_tokens)
        if usage.completion_tokens:
            metrics.tokens[provider, name, "completion"].inc(usage.completion_tokens)
        if cost is not None:
            metrics.cost[provider, name].inc(cost)

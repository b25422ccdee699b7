"""Prometheus metrics, in a registry of this service's own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, generate_latest

_FAST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
_SLOW = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 90)


class Metrics:
    """Times are in seconds, as Prometheus wants them."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.events = Counter("sidecast_events_total", "Events by what became of them.", ["outcome"], registry=registry)
        self.triggers = Counter("sidecast_triggers_total", "Events that triggered.", ["type"], registry=registry)
        self.ack = Histogram(
            "sidecast_ack_seconds", "From an event's arrival to its ACK.", buckets=_FAST, registry=registry
        )
        self.provider = Histogram(
            "sidecast_provider_seconds",
            "One call of a model.",
            ["provider", "result"],
            buckets=_SLOW,
            registry=registry,
        )
        self.whole_way = Histogram(
            "sidecast_interaction_seconds",
            "From receipt to the last state.",
            ["state"],
            buckets=_SLOW,
            registry=registry,
        )
        states = ["closed", "open", "half_open"]
        self.router_breaker = Enum(
            "sidecast_router_breaker", "Whether the router is asked.", states=states, registry=registry
        )
        self.provider_breaker = Enum(
            "sidecast_provider_breaker", "Whether a provider is asked.", ["provider"], states=states, registry=registry
        )
        self.answers = Counter(
            "sidecast_cached_answers_total",
            "Questions that may have been answered already, by whether they were (hit or miss).",
            ["result"],
            registry=registry,
        )
        self.in_flight = Gauge("sidecast_interactions_in_flight", "Being answered now.", registry=registry)

    def render(self) -> bytes:
        return generate_latest(self.registry)

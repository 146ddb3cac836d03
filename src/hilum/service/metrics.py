"""Prometheus metrics of the service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from hilum.backends.base import CHUNK


class Metrics:
    """Metrics in a registry of their own, so that two applications in one process do not share them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "hilum_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram("hilum_request_seconds", "Time to answer.", ["route"], registry=self.registry)
        self.images = Counter("hilum_images", "Images by status.", ["status"], registry=self.registry)
        self.batches = Histogram(
            "hilum_batch_images", "Images in a forward pass.", buckets=range(1, CHUNK + 1), registry=self.registry
        )
        self.waiting = Gauge("hilum_images_under_way", "Images accepted and not yet answered.", registry=self.registry)
        self.connections = Gauge("hilum_connections", "Open connections.", registry=self.registry)
        self.ended = Counter(
            "hilum_connections_ended", "Connections that the service ended before the client.", ["reason"],
            registry=self.registry,
        )  # fmt: skip

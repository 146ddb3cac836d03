"""Prometheus metrics of the service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


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
            "hilum_batch_images", "Images in a forward pass.", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )
        self.waiting = Gauge("hilum_images_under_way", "Images accepted and not yet answered.", registry=self.registry)

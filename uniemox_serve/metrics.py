"""Counters of the server for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Bounds of the histograms.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "uniemox_requests", "Requests by path and status", ("path", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "uniemox_request_seconds",
            "Seconds from a request's first byte to its response",
            ("path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.images = Counter("uniemox_pictures", "Images processed, by result", ("result",), registry=self.registry)
        self.batch_size = Histogram("uniemox_batch_size", "Images per batch", buckets=_SIZES, registry=self.registry)
        self.rejected = Counter("uniemox_rejected", "Requests refused, by reason", ("reason",), registry=self.registry)
        self.queue_length = Gauge("uniemox_queue_length", "Images that wait", registry=self.registry)

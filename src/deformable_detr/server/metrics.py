"""What Prometheus collects: requests, images, the queue, and how long things take."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16)


class Metrics:
    """The counts of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("ddetr_requests", "Requests by path and status.", ["path", "status"],
                                registry=self.registry)
        self.request_seconds = Histogram("ddetr_request_seconds", "From a request's head to the end of its answer.",
                                         ["path"], buckets=SECONDS, registry=self.registry)
        self.images = Counter("ddetr_images", "Images by what became of them: found, failed.", ["result"],
                              registry=self.registry)
        self.model_seconds = Histogram("ddetr_model_seconds", "A run of the model.", buckets=SECONDS,
                                       registry=self.registry)
        self.batch_images = Histogram("ddetr_batch_images", "Images of a run.", buckets=IMAGES,
                                      registry=self.registry)
        self._waiting = Gauge("ddetr_waiting_images", "Images that wait or are worked on.", registry=self.registry)
        self._held = Gauge("ddetr_held_bytes", "Bytes of request bodies in memory.", registry=self.registry)

    def watch(self, waiting: Callable[[], int], held: Callable[[], int]) -> None:
        """Where to look for what is counted elsewhere."""
        self._waiting.set_function(waiting)
        self._held.set_function(held)

    def text(self) -> bytes:
        return generate_latest(self.registry)

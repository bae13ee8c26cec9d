"""Figures of a server for Prometheus."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

Value = Callable[[], float]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_POWERS = tuple(2**power for power in range(16))


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("recycle_requests", "Requests answered.", ["endpoint", "status"], registry=registry)
        self._seconds = Histogram(
            "recycle_request_seconds",
            "From the head of a request to the end of its answer.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._samples = Counter(
            "recycle_samples", "Samples answered, found (hit) or computed (miss).", ["run", "kind"], registry=registry
        )
        self._batch_samples = Histogram(
            "recycle_batch_samples", "Samples a batch.", ["kind"], buckets=_POWERS[:11], registry=registry
        )
        self._batch_tokens = Histogram(
            "recycle_batch_tokens", "Padded tokens a batch.", ["kind"], buckets=_POWERS, registry=registry
        )
        self._dropped = Counter(
            "recycle_dropped", "Samples not computed because their client had gone.", registry=registry
        )
        self.in_flight = Gauge("recycle_requests_in_flight", "Requests being answered.", registry=registry)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def samples(self, run: str, count: int, hits: int) -> None:
        """The samples of a request for a RUN."""
        self._samples.labels(run, "hit").inc(hits)
        self._samples.labels(run, "miss").inc(count - hits)

    def batch(self, kind: str) -> Callable[[int, int], None]:
        """A function that notes the samples and padded tokens of a batch."""
        samples, tokens = self._batch_samples.labels(kind), self._batch_tokens.labels(kind)

        def told(count: int, padded: int) -> None:
            samples.observe(count)
            tokens.observe(padded)

        return told

    def dropped(self, count: int) -> None:
        """Samples that nobody waited for."""
        self._dropped.inc(count)

    def watch(self, queue: Value, memory: Value, stores: Mapping[str, Value]) -> None:
        """Ask for the tokens that wait, the bytes in memory, and those of each RUN's store whenever the figures are
        read."""
        waiting = Gauge("recycle_queue_tokens", "Tokens that wait to be computed.", registry=self._registry)
        waiting.set_function(queue)
        held = Gauge("recycle_memory_bytes", "Bytes of outputs kept in memory.", registry=self._registry)
        held.set_function(memory)
        sealed = Gauge("recycle_store_bytes", "Bytes of the store of a RUN.", ["run"], registry=self._registry)
        for run, value in stores.items():
            sealed.labels(run).set_function(value)

    def text(self) -> bytes:
        """The figures in Prometheus' format."""
        return generate_latest(self._registry)

"""Metrics of the gateway: requests by route and response, their duration, tasks of streams, open streams.

Labels are routes as they are declared, never paths as they are requested: their number does not grow with the
tasks.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millpond.broker.stats.histogram import BOUNDS, NAMES, Histogram
from millpond.producer.gateway.stream_sender import StreamCounts
from millpond.tasks.process.prometheus_text import Metric

#: The labels `route` and `method` of a request that no route handles.
OTHER = "other"
#: The status of a request that was cut off before its response began.
CUT_OFF = 499


class RequestMetrics:
    """The numbers since the gateway started. One event loop uses them."""

    def __init__(self, streams: Mapping[str, int]) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._tasks: Counter[str] = Counter()
        self._streams = streams
        self._counts: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request that had a response."""
        self._requests[route, method, status] += 1
        counts = self._counts.get(route)
        if counts is None:
            counts = self._counts[route] = [0] * len(NAMES)
        counts[bisect_left(BOUNDS, seconds)] += 1
        self._seconds[route] = self._seconds.get(route, 0.0) + seconds

    def count_stream(self, counts: StreamCounts) -> None:
        """Count the tasks of a stream that has ended."""
        self._tasks.update(accepted=counts.accepted, duplicate=counts.duplicates, refused=counts.refused)

    def metrics(self) -> Iterator[Metric]:
        """Yield the metrics for Prometheus."""
        requests = [
            ({"route": route, "method": method, "status": str(status)}, count)
            for (route, method, status), count in sorted(self._requests.items())
        ]
        yield Metric("millpond_gateway_requests", "counter", "Requests answered", requests)
        durations = [
            ({"route": route}, Histogram(tuple(counts), self._seconds[route]))
            for route, counts in sorted(self._counts.items())
        ]
        help = "Duration of requests, to the end of the answer"
        yield Metric("millpond_gateway_request_seconds", "histogram", help, durations)
        tasks = [({"outcome": outcome}, count) for outcome, count in sorted(self._tasks.items())]
        yield Metric("millpond_gateway_stream_tasks", "counter", "Tasks of ended streams, by outcome", tasks)
        streams = [({"of": of}, count) for of, count in sorted(self._streams.items())]
        yield Metric("millpond_gateway_streams", "gauge", "Streams open now", streams)


class MeasureRequests:
    """ASGI middleware that counts every response. `paths` are the paths that the inner middleware handles.

    `refused` is called with the token of a request that is refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: RequestMetrics,
        paths: Mapping[str, object],
        refused: Callable[[str], None],
    ) -> None:
        self._app = app
        self._refused = refused
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request and count it."""
        started, status = time.perf_counter(), CUT_OFF

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observe)
        finally:
            path, method = scope["path"], scope["method"]
            if path not in self._paths:
                path = getattr(scope.get("route"), "path", OTHER)
            seconds = time.perf_counter() - started
            self._metrics.count_request(path, method if path != OTHER else OTHER, status, seconds)
            if status >= 400 and (principal := scope["state"].get("principal")) is not None:
                self._refused(principal.name)

"""Metrics of the gateway: requests by route and response, their duration, tasks of streams, open streams.

A label is a route as it is declared, never a path as it is requested, so that the number of labels does not
grow with the number of tasks.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millpond.broker.stats.histogram import BOUNDS, NAMES, Histogram
from millpond.producer.gateway.stream_sender import StreamCounts
from millpond.tasks.process.prometheus_text import Metric

#: The labels `route` and `method` of a request that no route handles.
OTHER = "other"
#: The status of a request that was cut off before its response began.
CUT_OFF = 499


class RequestMetrics:
    """The counts since the gateway started. One event loop uses them.

    `streams` has the number of open streams by type, which its owner keeps up to date.
    """

    def __init__(self, streams: Mapping[str, int]) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._tasks: Counter[str] = Counter()
        self._streams = streams
        #: By route: the counts of the histogram of durations, and the sum of the durations.
        self._counts: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request that has ended, and its duration."""
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
        streams = [({"of": stream_type}, count) for stream_type, count in sorted(self._streams.items())]
        yield Metric("millpond_gateway_streams", "gauge", "Streams open now", streams)


@dataclass(frozen=True)
class RequestMeter:
    """ASGI middleware that counts every request.

    `endpoint_paths` are the paths that the inner middleware handles without a route. `on_refused` is called
    with the token of a request whose status is 400 or above.
    """

    app: ASGIApp
    metrics: RequestMetrics
    endpoint_paths: Container[str]
    on_refused: Callable[[str], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request and count it."""
        started, status = time.perf_counter(), CUT_OFF

        async def send_and_keep_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_keep_status)
        finally:
            route, method = scope["path"], scope["method"]
            if route not in self.endpoint_paths:
                route = getattr(scope.get("route"), "path", OTHER)
            seconds = time.perf_counter() - started
            self.metrics.count_request(route, method if route != OTHER else OTHER, status, seconds)
            if status >= 400 and (principal := scope["state"].get("principal")) is not None:
                self.on_refused(principal.name)

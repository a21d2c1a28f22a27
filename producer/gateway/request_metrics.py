"""Measure what the gateway is asked: requests by route and answer, how long they took, what streams took in.

Labels are routes as they are described, never paths as they are asked for: nothing that grows with the tasks.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millpond.broker.stats.histogram import BOUNDS, NAMES, Histogram
from millpond.producer.gateway.stream_sender import Counts
from millpond.tasks.process.prometheus_text import Metric

#: The route and the method of what no route answers.
OTHER = "other"


class Figures:
    """Hold what was measured since the gateway started; belongs to one event loop."""

    def __init__(self, streams: Mapping[str, int]) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.tasks: Counter[str] = Counter()
        self.streams = streams
        self._counts: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests[route, method, status] += 1
        counts = self._counts.get(route)
        if counts is None:
            counts = self._counts[route] = [0] * len(NAMES)
        counts[bisect_left(BOUNDS, seconds)] += 1
        self._seconds[route] = self._seconds.get(route, 0.0) + seconds

    def streamed(self, counts: Counts) -> None:
        """Count what became of the tasks of a stream."""
        self.tasks.update(taken=counts.taken, duplicate=counts.duplicates, refused=counts.refused)

    def metrics(self) -> Iterator[Metric]:
        """Yield all of it."""
        asked = [
            ({"route": route, "method": method, "status": str(status)}, count)
            for (route, method, status), count in sorted(self.requests.items())
        ]
        yield Metric("millpond_gateway_requests", "counter", "Requests that were answered", asked)
        took = [
            ({"route": route}, Histogram(tuple(counts), self._seconds[route]))
            for route, counts in sorted(self._counts.items())
        ]
        yield Metric("millpond_gateway_request_seconds", "histogram", "From asked to answered", took)
        outcomes = [({"outcome": outcome}, count) for outcome, count in sorted(self.tasks.items())]
        yield Metric("millpond_gateway_stream_tasks", "counter", "Tasks of streams that have ended", outcomes)
        open_now = [({"of": of}, count) for of, count in sorted(self.streams.items())]
        yield Metric("millpond_gateway_streams", "gauge", "Streams that are open", open_now)


class Measured:
    """Wrap the application and note each answer."""

    def __init__(self, app: ASGIApp, figures: Figures, paths: Mapping[str, object]) -> None:
        self._app = app
        self._figures = figures
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; one that is cut off before its answer began counts as 499."""
        began, status = time.perf_counter(), 499

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            path, method = scope["path"], scope["method"]
            if path not in self._paths:
                path = getattr(scope.get("route"), "path", OTHER)
            seconds = time.perf_counter() - began
            self._figures.answered(path, method if path != OTHER else OTHER, status, seconds)

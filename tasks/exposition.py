"""Write figures as Prometheus reads them: its text format, version 0.0.4.

Flower has the library of Prometheus for it; worker and gateway need no more than this.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from broker.histograms import BOUNDS, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: The buckets that are exposed: 1, 2 and 5 of every power of ten from 1 ms to 1,000 s.
EXPOSED = tuple(b for b in BOUNDS if 0.001 <= b <= 1_000 and f"{b:e}"[:3] in ("1.0", "2.0", "5.0"))

Labels = Mapping[str, str]

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True)
class Metric:
    """Hold one metric: its name without `_total`, what it is, and its values by labels."""

    name: str
    of: Literal["counter", "gauge", "histogram"]
    help: str
    values: Iterable[tuple[Labels, float | Histogram]]


def exposition(metrics: Iterable[Metric]) -> bytes:
    """Return metrics as text."""
    return "".join(line + "\n" for metric in metrics for line in _lines(metric)).encode()


def _lines(metric: Metric) -> Iterator[str]:
    name = f"{metric.name}_total" if metric.of == "counter" else metric.name
    yield f"# HELP {name} {metric.help}"
    yield f"# TYPE {name} {metric.of}"
    for labels, value in metric.values:
        if isinstance(value, Histogram):
            yield from _histogram(name, labels, value)
        else:
            yield f"{name}{_labels(labels)} {float(value)}"


def _histogram(name: str, labels: Labels, value: Histogram) -> Iterator[str]:
    below = dict(zip(BOUNDS, accumulate(value.counts), strict=False))
    for bound in EXPOSED:
        yield f"{name}_bucket{_labels({**labels, 'le': str(bound)})} {float(below[bound])}"
    yield f"{name}_bucket{_labels({**labels, 'le': '+Inf'})} {float(value.count)}"
    yield f"{name}_sum{_labels(labels)} {value.seconds}"
    yield f"{name}_count{_labels(labels)} {float(value.count)}"


def _labels(labels: Labels) -> str:
    inner = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""

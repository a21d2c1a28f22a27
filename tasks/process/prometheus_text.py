"""Write metrics in the text format of Prometheus, version 0.0.4.

Prometheus's own Python library, which Flower uses for its metrics, takes many times as long.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from millpond.broker.stats.histogram import BOUNDS, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: The text and the index of each exposed bucket: 1, 2 and 5 of every power of ten from 1 ms to 1,000 s.
_EXPOSED_BUCKETS = tuple(
    (str(bound), index)
    for index, bound in enumerate(BOUNDS)
    if 0.001 <= bound <= 1_000 and f"{bound:e}"[:3] in ("1.0", "2.0", "5.0")
)

Labels = Mapping[str, str]

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True)
class Metric:
    """One metric: its name without `_total`, its type, its help, and its values by labels."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    values: Iterable[tuple[Labels, float]] | Iterable[tuple[Labels, Histogram]]


def format_metrics(metrics: Iterable[Metric]) -> bytes:
    """Return the metrics in the text format, encoded."""
    return "".join(line + "\n" for metric in metrics for line in _metric_lines(metric)).encode()


def _metric_lines(metric: Metric) -> Iterator[str]:
    """Yield the lines of one metric: its help, its type, and a line for each set of labels."""
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    yield f"# HELP {name} {metric.help}"
    yield f"# TYPE {name} {metric.type}"
    for labels, value in metric.values:
        if isinstance(value, Histogram):
            yield from _histogram_lines(name, labels, value)
        else:
            yield f"{name}{_format_labels(labels)} {float(value)}"


def _histogram_lines(name: str, labels: Labels, histogram: Histogram) -> Iterator[str]:
    """Yield the lines of a histogram: its buckets, which are cumulative, its sum and its count."""
    label_text = _format_labels(labels)
    start = f"{label_text[:-1]}," if label_text else "{"
    totals = tuple(accumulate(histogram.counts))
    for bound, index in _EXPOSED_BUCKETS:
        yield f'{name}_bucket{start}le="{bound}"}} {totals[index]}.0'
    yield f'{name}_bucket{start}le="+Inf"}} {totals[-1]}.0'
    yield f"{name}_sum{label_text} {histogram.seconds}"
    yield f"{name}_count{label_text} {totals[-1]}.0"


def _format_labels(labels: Labels) -> str:
    """Return labels as `{name="value",…}`; "" for none."""
    pairs = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""

"""The report of a run: the work with its rates, a check of the outputs, and a page of the thumbnails."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from rich import box
from rich.console import Console
from rich.table import Table

from examples.demo.running import Run
from examples.demo.sink import Mailbox
from millpond.tasks.email.contract import SendEmail
from millpond.tasks.files.contract import Thumbnail

_WIDTH_ELSEWHERE = 100
_STYLE = "body{background:#1b1d22;margin:2em}img{margin:4px;max-height:240px}"


def show_table(runs: Sequence[Run]) -> None:
    """Print a line for each job."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_ELSEWHERE)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("job")
    table.add_column("pool")
    for name in ("done", "failed", "read", "seconds", "tasks/s", "bytes/s"):
        table.add_column(name, justify="right")
    for run in runs:
        tasks = (run.done, len(run.failures))
        table.add_row(run.job.name, run.job.queue, *_figures(*tasks, run.job.bytes, run.seconds))
    table.add_section()
    done, failed = sum(run.done for run in runs), sum(len(run.failures) for run in runs)
    seconds = max(run.ended for run in runs) - min(run.started for run in runs)
    table.add_row("all at once", "", *_figures(done, failed, sum(run.job.bytes for run in runs), seconds))
    console.print(table)


def _figures(done: int, failed: int, length: int, seconds: float) -> tuple[str, ...]:
    rates = (f"{(done + failed) / seconds:,.1f}", _size(length / seconds))
    return f"{done:,}", f"{failed:,}", _size(length), f"{seconds:.1f}", *rates


def _size(length: float) -> str:
    return f"{length / 1e6:,.1f} MB" if length >= 1e6 else f"{length / 1e3:,.0f} kB"


def failures(runs: Iterable[Run]) -> Iterator[str]:
    """Yield a line for each failure, and say which were meant to be."""
    for run in runs:
        for each in run.failures:
            remark = "" if each in run.unexpected else " (as it should)"
            yield f"failed{remark}: {each.error or each.state}"


def mail_faults(run: Run, box: Mailbox) -> list[str]:
    """Compare the mails sent with those that arrived; return the faults."""
    mails = [message.contract for message in run.job.messages if isinstance(message.contract, SendEmail)]
    sent = Counter(address for mail in mails for address in mail.recipients)
    del sent[box.refused]
    lost = sorted((sent - box.arrived).elements())
    twice = sorted((box.arrived - sent).elements())
    return [
        f"{len(addresses)} mails {what}, the first to {addresses[0]}"
        for what, addresses in (("did not arrive", lost), ("arrived more often than sent", twice))
        if addresses
    ]


def write_page(run: Run, page: Path) -> int:
    """Write a page that shows the thumbnails of this run; return how many there are."""
    jobs = (message.contract for message in run.job.messages)
    targets = (Path(job.target) for job in jobs if isinstance(job, Thumbnail))
    found = [target for target in targets if target.exists()]
    images = (
        f'<img src="{quote(f"{target.parent.name}/{target.name}")}" alt="{escape(target.stem)}">'
        for target in found
    )
    head = f'<!doctype html><meta charset="utf-8"><title>Millpond: thumbnails</title><style>{_STYLE}</style>'
    page.write_text("\n".join([head, *images, ""]), encoding="utf-8")
    return len(found)

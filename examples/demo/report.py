"""The report of a run: the jobs with their rates, a check of the outputs, and a page of the thumbnails."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from rich import box
from rich.console import Console
from rich.table import Table

from examples.demo.mailbox import Mailbox
from examples.demo.running import Run
from millpond.tasks.email.contract import SendEmail
from millpond.tasks.files.contract import Thumbnail

#: The width of the table where stdout is not a terminal.
_WIDTH = 100
_STYLE = "body{background:#1b1d22;margin:2em}img{margin:4px;max-height:240px}"


def show_table(runs: Sequence[Run]) -> None:
    """Print a table with a row for each job and one for all together."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
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


def _figures(done: int, failed: int, byte_count: int, seconds: float) -> tuple[str, ...]:
    """Return the cells of a row from `done` to `bytes/s`."""
    rates = (f"{(done + failed) / seconds:,.1f}", _format_size(byte_count / seconds))
    return f"{done:,}", f"{failed:,}", _format_size(byte_count), f"{seconds:.1f}", *rates


def _format_size(byte_count: float) -> str:
    return f"{byte_count / 1e6:,.1f} MB" if byte_count >= 1e6 else f"{byte_count / 1e3:,.0f} kB"


def failures(runs: Iterable[Run]) -> Iterator[str]:
    """Yield a line for each failure. It states whether the failure was intended."""
    for run in runs:
        for result in run.failures:
            remark = "" if result in run.unexpected else " (as it should)"
            yield f"failed{remark}: {result.error or result.state}"


def mail_faults(run: Run, mailbox: Mailbox) -> list[str]:
    """Return a line for mails that did not arrive, and one for mails that arrived too often."""
    mails = [message.contract for message in run.job.messages if isinstance(message.contract, SendEmail)]
    sent = Counter(address for mail in mails for address in mail.recipients)
    del sent[mailbox.refused]
    lost = sorted((sent - mailbox.arrived).elements())
    twice = sorted((mailbox.arrived - sent).elements())
    return [
        f"{len(addresses)} mails {fault}, the first to {addresses[0]}"
        for fault, addresses in (("did not arrive", lost), ("arrived more often than sent", twice))
        if addresses
    ]


def write_page(run: Run, page: Path) -> int:
    """Write a page that shows the thumbnails of a run. Return their number."""
    jobs = (message.contract for message in run.job.messages)
    targets = (Path(job.target) for job in jobs if isinstance(job, Thumbnail))
    thumbnails = [target for target in targets if target.exists()]
    images = (
        f'<img src="{quote(f"{target.parent.name}/{target.name}")}" alt="{escape(target.stem)}">'
        for target in thumbnails
    )
    head = f'<!doctype html><meta charset="utf-8"><title>Millpond: thumbnails</title><style>{_STYLE}</style>'
    page.write_text("\n".join([head, *images, ""]), encoding="utf-8")
    return len(thumbnails)

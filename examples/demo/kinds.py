"""Make the demo's material in the pool itself: a kind of task of the demo's own, beside Millpond's."""

from typing import Literal

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.files.contract import Url
from millpond.tasks.files.storage import storage
from millpond.tasks.handlers import handler


class Make(Contract, kind="demo.make", queue="files"):
    """Write piece `number` of a sort of material; the same number gives the same content."""

    what: Literal["photograph", "table", "document"]
    number: int
    target: Url


@handler(Make)
def make(job: Make, context: Context) -> None:
    """Write one piece, under its name only once it is whole."""
    from examples.demo import documents, scenery, tables

    write = {"photograph": scenery.photograph, "table": tables.table, "document": documents.document}
    with storage().local_output(job.target) as path:
        write[job.what](job.number, path)

"""A kind of the demo's own, beside Millpond's: its tasks make the material in the pool."""

from typing import Literal

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.files.contract import Url
from millpond.tasks.files.storage import storage
from millpond.tasks.handlers import handler


class MakeMaterial(Contract, kind="demo.make", queue="files"):
    """Write file `number` of a sort of material. The same number gives the same content."""

    what: Literal["photograph", "table", "document"]
    number: int
    target: Url


@handler(MakeMaterial)
def make_material(job: MakeMaterial, context: Context) -> None:
    """Write one file. It gets its name only when it is complete."""
    from examples.demo import documents, scenery, tables

    write = {
        "photograph": scenery.write_photograph,
        "table": tables.write_table,
        "document": documents.write_document,
    }
    with storage().local_output(job.target) as path:
        write[job.what](job.number, path)

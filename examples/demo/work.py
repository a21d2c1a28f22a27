"""The work of the demo on its material: a list of jobs, each a batch of tasks of one kind."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.demo.kinds import Make
from examples.demo.material import CUT_SHORT, REFUSED, Material
from millpond.producer.message import Message
from millpond.tasks.contract import Contract
from millpond.tasks.email.campaign import mails_of_file
from millpond.tasks.email.contract import SendCampaign
from millpond.tasks.files.contract import Checksum, Compress, PdfText, Thumbnail, ToParquet, file_url

_SUBJECT = "{{ name }}, the pond at {{ town }} is full"
_TEXT = """Dear {{ name }},

the water at {{ town }} stands at the upper mark. The wheels turn at the rate they can bear.

The miller
"""
_HTML = """<p>Dear {{ name }},</p>
<p>the water at <b>{{ town }}</b> stands at the upper mark. The wheels turn at the rate they can bear.</p>
<p>The miller</p>
"""


#: A file that is read, and the fields of the task that reads it.
Task = tuple[Path, dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """The tasks of a batch; `bytes` is the length of their inputs.

    `meant_to_fail` is a word in the error of each task that should fail, for the demo shows that too.
    """

    name: str
    queue: str
    messages: list[Message]
    bytes: int = 0
    meant_to_fail: tuple[str, ...] = ()


def making(missing: list[Make]) -> Job:
    """Return the job that makes the material."""
    return Job("material", "files", [Message(task) for task in missing])


def the_work(material: Material, out: Path) -> list[Job]:
    """Return the tasks, the mails first: their queue is another, so neither kind waits for the other."""
    photographs, tables = material.photograph_files(), material.table_files()
    small = {"width": 480, "height": 480}
    return [
        _campaign(material.people_file()),
        _over("Parquet of tables", ToParquet, _places(tables, out / "parquet", ".parquet")),
        _over("zstd of tables", Compress, _places(tables, out / "packed", ".csv.zst")),
        _over("text of PDFs", PdfText, _places(material.document_files(), out / "texts", ".txt")),
        _over(
            "thumbnails", Thumbnail, _places(photographs, out / "thumbnails", ".jpg", **small), (CUT_SHORT,)
        ),
        _over("checksums", Checksum, [(path, {"source": file_url(path)}) for path in photographs]),
    ]


def _over(name: str, kind: type[Contract], tasks: Sequence[Task], meant_to_fail: tuple[str, ...] = ()) -> Job:
    size = sum(path.stat().st_size for path, _fields in tasks)
    return Job(name, "files", [Message(kind(**fields)) for _path, fields in tasks], size, meant_to_fail)


def _places(sources: Sequence[Path], folder: Path, extension: str, **fields: Any) -> list[Task]:
    """Return a task for each source, with a target of its own in one folder; equal names get a number."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: Counter[str] = Counter()
    tasks = []
    for source in sources:
        taken[source.stem] += 1
        number = f"~{taken[source.stem]}" if taken[source.stem] > 1 else ""
        target = file_url(folder / f"{source.stem}{number}{extension}")
        tasks.append((source, {"source": file_url(source), "target": target, **fields}))
    return tasks


def _campaign(people: Path) -> Job:
    campaign = SendCampaign(
        sender="The Miller <miller@example.org>", subject=_SUBJECT, text=_TEXT, html=_HTML, source=str(people)
    )
    with people.open("rb") as stream:
        mails = [
            Message(mail.job, id=mail.id) for mail in mails_of_file(campaign, stream, campaign_id="demo")
        ]
    return Job("mails", "email", mails, people.stat().st_size, (REFUSED,))

"""The jobs of the demo: each is a batch of tasks of one kind over the material."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.demo.kinds import MakeMaterial
from examples.demo.material import CUT_SHORT, REFUSED, Material
from millpond.producer.message import Message
from millpond.tasks.contract import Contract
from millpond.tasks.email.campaign import read_valid_mails
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
FileTask = tuple[Path, dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """The tasks of a batch. `bytes` is the length of their inputs.

    A failure is intended if its error contains one of the words in `meant_to_fail`.
    """

    name: str
    queue: str
    messages: list[Message]
    bytes: int = 0
    meant_to_fail: tuple[str, ...] = ()


def material_job(missing: list[MakeMaterial]) -> Job:
    """Return the job that makes the missing material."""
    return Job("material", "files", [Message(task) for task in missing])


def demo_jobs(material: Material, out: Path) -> list[Job]:
    """Return the jobs over the material, whose outputs lie below `out`. Mails have a queue of their own."""
    photographs, tables = material.photograph_files(), material.table_files()
    small = {"width": 480, "height": 480}
    return [
        _campaign(material.write_people_file()),
        _file_job("Parquet of tables", ToParquet, _tasks_with_targets(tables, out / "parquet", ".parquet")),
        _file_job("zstd of tables", Compress, _tasks_with_targets(tables, out / "packed", ".csv.zst")),
        _file_job(
            "text of PDFs", PdfText, _tasks_with_targets(material.document_files(), out / "texts", ".txt")
        ),
        _file_job(
            "thumbnails",
            Thumbnail,
            _tasks_with_targets(photographs, out / "thumbnails", ".jpg", **small),
            (CUT_SHORT,),
        ),
        _file_job("checksums", Checksum, [(path, {"source": file_url(path)}) for path in photographs]),
    ]


def _file_job(
    name: str, contract: type[Contract], tasks: Sequence[FileTask], meant_to_fail: tuple[str, ...] = ()
) -> Job:
    """Return the job of one kind over files."""
    size = sum(path.stat().st_size for path, _fields in tasks)
    return Job(name, "files", [Message(contract(**fields)) for _path, fields in tasks], size, meant_to_fail)


def _tasks_with_targets(
    sources: Sequence[Path], folder: Path, extension: str, **fields: Any
) -> list[FileTask]:
    """Return a task for each source, with a target in one folder. Of equal names, later ones get a number."""
    folder.mkdir(parents=True, exist_ok=True)
    stems: Counter[str] = Counter()
    tasks = []
    for source in sources:
        stems[source.stem] += 1
        number = f"~{stems[source.stem]}" if stems[source.stem] > 1 else ""
        target = file_url(folder / f"{source.stem}{number}{extension}")
        tasks.append((source, {"source": file_url(source), "target": target, **fields}))
    return tasks


def _campaign(people: Path) -> Job:
    """Return the job that sends a mail for each row of a CSV."""
    campaign = SendCampaign(
        sender="The Miller <miller@example.org>", subject=_SUBJECT, text=_TEXT, html=_HTML, source=str(people)
    )
    with people.open("rb") as stream:
        mails = [
            Message(mail.job, id=mail.id) for mail in read_valid_mails(campaign, stream, campaign_id="demo")
        ]
    return Job("mails", "email", mails, people.stat().st_size, (REFUSED,))

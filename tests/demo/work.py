"""Say what the demo does with its material: a list of jobs, each a batch of tasks of one kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from producer.message import Message
from tasks.contracts import Contract
from tasks.email.campaign import recipients
from tasks.email.contract import SendCampaign
from tasks.files.contract import Checksum, Compress, PdfText, Thumbnail, ToParquet, file_url
from tests.demo.kinds import Make
from tests.demo.material import CUT_SHORT, REFUSED, Material

_SUBJECT = "{{ name }}, the pond at {{ town }} is full"
_TEXT = """Dear {{ name }},

the water at {{ town }} stands at the upper mark. The wheels turn at the rate they can bear.

The miller
"""
_HTML = """<p>Dear {{ name }},</p>
<p>the water at <b>{{ town }}</b> stands at the upper mark. The wheels turn at the rate they can bear.</p>
<p>The miller</p>
"""


@dataclass(frozen=True)
class Job:
    """Hold the tasks of a batch; `bytes` is the length of what they read.

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
    """Return what is to be done, the mails first; their queue is another, so nothing waits for anything."""
    photographs, tables = material.photograph_files(), material.table_files()
    return [
        _campaign(material.people_file()),
        _over("Parquet of tables", tables, lambda at: ToParquet(**_places(at, out / "parquet", ".parquet"))),
        _over("zstd of tables", tables, lambda at: Compress(**_places(at, out / "packed", ".csv.zst"))),
        _over(
            "text of PDFs",
            material.document_files(),
            lambda at: PdfText(**_places(at, out / "texts", ".txt")),
        ),
        _over(
            "thumbnails",
            photographs,
            lambda at: Thumbnail(**_places(at, out / "thumbnails", ".jpg"), width=480, height=480),
            meant_to_fail=(CUT_SHORT,),
        ),
        _over("checksums", photographs, lambda at: Checksum(source=file_url(at))),
    ]


def _over(
    name: str,
    files: Sequence[Path],
    task: Callable[[Path], Contract],
    *,
    meant_to_fail: tuple[str, ...] = (),
) -> Job:
    size = sum(path.stat().st_size for path in files)
    return Job(name, "files", [Message(task(path)) for path in files], size, meant_to_fail)


def _places(source: Path, folder: Path, extension: str) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    return {"source": file_url(source), "target": file_url(folder / (source.stem + extension))}


def _campaign(people: Path) -> Job:
    campaign = SendCampaign(
        sender="The Miller <miller@example.org>", subject=_SUBJECT, text=_TEXT, html=_HTML, source=str(people)
    )
    with people.open("rb") as stream:
        mails = [Message(mail.job, id=mail.id) for mail in recipients(campaign, stream, campaign_id="demo")]
    return Job("mails", "email", mails, people.stat().st_size, (REFUSED,))

"""The pool for files in its container's memory: every slot has the worst file that is allowed, or refused."""

import io
import lzma
import os
import random
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pyvips

from millpond import Client
from millpond.tasks.contract import Contract
from millpond.tasks.files.contract import Compress, ConvertImage, PdfText, ToParquet, Unpack
from millpond.tasks.pools import PoolsTable
from millpond.tasks.settings import Settings
from tests.harness.memory_limit import MemoryLimit, can_limit_memory, memory_limit
from tests.harness.one_worker import workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]

MIB = 1024**2
#: The limit of the container (docker-compose.yml; tests/unit/deploy holds it there), and its slots on two.
CONTAINER_BYTES, SLOTS = 2_560 * MIB, 2
#: A table that is read whole would need this, several times; the text of a page, more than this.
TABLE_BYTES, PAGE_BYTES = 200 * MIB, 600 * MIB


def image_held_whole(root: Path) -> None:
    """Make an interlaced PNG that its decoder holds whole, of almost `max_image_bytes` of pixels."""
    side = 9_600
    black = pyvips.Image.black(side, side, bands=4).cast("ushort").copy(interpretation="rgb16")
    black.pngsave(str(root / "in.png"), interlace=True, compression=1)


def image_encoded_whole(root: Path) -> None:
    """Make a JPEG that an encoder for WebP holds, just within `max_image_bytes`."""
    pyvips.Image.black(11_400, 11_400, bands=3).copy(interpretation="srgb").jpegsave(str(root / "in.jpg"))


def wide_table(root: Path) -> None:
    """Make a CSV of many columns and long texts that do not repeat."""
    draw = random.Random(1)
    with (root / "in.csv").open("w") as file:
        file.write(",".join(f"c{n}" for n in range(1_000)) + "\n")
        while file.tell() < TABLE_BYTES:
            row = draw.randbytes(50_000).hex()
            file.write(",".join(row[at : at + 100] for at in range(0, 100_000, 100)) + "\n")


def endless_line(root: Path) -> None:
    """Make a JSONL file of one line."""
    with (root / "in.jsonl").open("wb") as file:
        file.write(b'{"a":"')
        file.writelines(b"x" * MIB for _ in range(TABLE_BYTES // MIB))
        file.write(b'"}\n')


def swelling_pdf(root: Path) -> None:
    """Make a PDF with a page that is a thousand times as large as the file."""
    packer = zlib.compressobj(9)
    text = b"BT /F 9 Tf 1 0 0 1 9 9 Tm (" + b"worst case " * 90_000 + b") Tj ET\n"
    content = b"".join(packer.compress(text) for _ in range(PAGE_BYTES // len(text))) + packer.flush()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, starts = io.BytesIO(), []
    out.write(b"%PDF-1.4\n")
    for number, each in enumerate(objects, start=1):
        starts.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, each))
    table = out.tell()
    out.write(b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % at for at in starts))
    out.write(b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % table)
    (root / "in.pdf").write_bytes(out.getvalue())


def many_entries(root: Path) -> None:
    """Make a zip of as many files as are allowed, with long names."""
    with zipfile.ZipFile(root / "in.zip", "w") as archive:
        for number in range(99_000):
            archive.writestr(f"{number:06}{'n' * 200}", b"")


def long_window(root: Path) -> None:
    """Make an archive with the largest dictionary that is allowed, and enough content to fill it."""
    block = os.urandom(MIB)
    with tarfile.open(root / "in.tar", "w") as archive:
        for number in range(200):
            entry = tarfile.TarInfo(str(number))
            entry.size = MIB
            archive.addfile(entry, io.BytesIO(block))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 96 * MIB}]
    with lzma.open(root / "in.tar.xz", "wb", filters=filters) as packed:
        packed.write((root / "in.tar").read_bytes())


#: Name -> the function that makes the file, the task on it (its target has the slot's number), and its error.
WORST: dict[str, tuple[Callable[[Path], None], Callable[[int], Contract], str]] = {
    "image held whole": (
        image_held_whole,
        lambda n: ConvertImage(source="in.png", target=f"out{n}.jpg"),
        "",
    ),
    "image encoded whole": (
        image_encoded_whole,
        lambda n: ConvertImage(source="in.jpg", target=f"out{n}.webp"),
        "",
    ),
    "wide table": (
        wide_table,
        lambda n: ToParquet(source="in.csv", target=f"out{n}.parquet", row_group_rows=10_000_000),
        "",
    ),
    "endless line": (
        endless_line,
        lambda n: ToParquet(source="in.jsonl", target=f"line{n}.parquet"),
        "TooLarge",
    ),
    "swelling pdf": (swelling_pdf, lambda n: PdfText(source="in.pdf", target=f"out{n}.txt"), "TooLarge"),
    "many entries": (many_entries, lambda n: Unpack(source="in.zip", target=f"zip{n}"), ""),
    "long window": (long_window, lambda n: Unpack(source="in.tar.xz", target=f"xz{n}"), ""),
    "best compression": (
        endless_line,
        lambda n: Compress(source="in.jsonl", target=f"out{n}.zst", level=19),
        "",
    ),
}


@pytest.fixture(scope="module")
def contained(
    module_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Client, Path, MemoryLimit]]:
    """Run the pool for files in a group of its container's memory; its database is this module's."""
    if not can_limit_memory():
        pytest.skip("control groups for memory (version 1) cannot be made here")
    root, logs = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("logs")
    pool = PoolsTable().pools["files"].model_copy(update={"concurrency": SLOTS})
    settings = Settings(
        broker_url=module_url,
        files={"roots": (str(root),)},
        drain_seconds=5,
        table={"pools": {"files": pool.model_dump(exclude_unset=True)}},
    )
    with (
        memory_limit(CONTAINER_BYTES) as group,
        workers(settings, logs, pool="files", prefix=group.prefix),
        Client(settings=settings) as client,
    ):
        yield client, root, group


@pytest.mark.parametrize("name", WORST)
def test_the_worst_files_in_every_slot_fit(contained: tuple[Client, Path, MemoryLimit], name: str) -> None:
    """With a worst file in every slot the kernel kills no process; too large files are refused in a line."""
    client, root, group = contained
    make, task, error = WORST[name]
    make(root)
    with client.batch(name) as batch:
        for slot in range(SLOTS):
            batch.send(task(slot))
    results = list(batch.results())
    print(f"{name}: {group.peak_bytes / MIB:.0f} MiB at most so far; {[each.error for each in results]}")
    assert group.killed == 0
    assert len(results) == SLOTS
    for each in results:
        said = str(each.error or "")
        assert error in said, said
        assert bool(error) == bool(said), said
        assert "\n" not in said

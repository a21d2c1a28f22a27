"""Each of the small inputs that went wrong once ends as `tests/cases/README.md` says.

The folder `shared/cases` beside the clone is run as well, where there is one.
"""

import re
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput
from millpond.tasks.files import archives, images, pdf, tables
from millpond.tasks.files.contract import ConvertImage, PdfText, Thumbnail, ToParquet, Unpack
from millpond.tasks.files.storage import Storage

CASES = Path(__file__).parents[2] / "cases"
SHARED = Path(__file__).parents[4] / "shared" / "cases"
FOLDERS = [folder for folder in (CASES, SHARED) if folder.is_dir()]
#: Cases of other kinds of task, tested there.
OTHERS = ("mail",)
OPEN_QUOTE = "line {}, opens a quote that never closes"


class Case:
    """One input in a root of its own, and the operations on it."""

    def __init__(self, source: Path, root: Path) -> None:
        self.root, self.name = root, source.name
        shutil.copy(source, root)
        (root / source.name).chmod(0o644)
        self.store, self.context = Storage(roots=(str(root),)), Context()

    def rows(self) -> list[dict[str, Any]]:
        tables.to_parquet(ToParquet(source=self.name, target="out.parquet"), self.store, self.context)
        found: list[dict[str, Any]] = pq.read_table(self.root / "out.parquet").to_pylist()
        return found

    def thumbnail(self, target: str = "small.png") -> Image.Image:
        job = Thumbnail(source=self.name, target=target, width=200, height=200)
        images.make_thumbnail(job, self.store, self.context)
        with Image.open(self.root / target) as image:
            return image.convert("RGB")

    def converted(self, target: str = "out.png") -> Image.Image:
        images.convert_image(ConvertImage(source=self.name, target=target), self.store, self.context)
        with Image.open(self.root / target) as image:
            return image.convert("RGB")

    def unpacked(self, **options: str) -> dict[str, bytes]:
        job = Unpack(source=self.name, target="out", **options)
        archives.unpack(job, self.store, self.context)
        out = self.root / "out"
        return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def text(self) -> tuple[str, str | None]:
        result = pdf.extract_text(PdfText(source=self.name, target="out.txt"), self.store, self.context)
        return (self.root / "out.txt").read_text(), result.note

    def refused(self, run: Callable[[], Any]) -> str:
        """Return the one clear line with which an operation refuses the input; nothing may be left behind."""
        with pytest.raises(BadInput) as caught:
            run()
        assert [path.name for path in self.root.iterdir()] == [self.name]
        message = str(caught.value)
        assert "\n" not in message
        return message

    def refused_images(self) -> str:
        """Return the errors of both operations, the same for each target."""
        said = {
            self.refused(lambda run=run, target=target: run(target))
            for run, target in product(
                (self.thumbnail, self.converted), ("o.jpg", "o.png", "o.webp", "o.avif")
            )
        }
        (message,) = said
        return message


def _keeps_its_colours(case: Case) -> None:
    with Image.open(case.root / case.name) as image:
        wanted = image.convert("RGB")
    difference = zip(case.converted().tobytes(), wanted.tobytes(), strict=True)
    assert max(abs(one - other) for one, other in difference) <= 4
    assert case.thumbnail().size == wanted.size


def _shows_its_first_frame(case: Case) -> None:
    with Image.open(case.root / case.name) as image:
        wanted = image.convert("RGB").resize((8, 8)).tobytes()
    found = case.thumbnail().resize((8, 8)).tobytes()
    assert max(abs(one - other) for one, other in zip(found, wanted, strict=True)) < 8


def _is_no_damage(case: Case) -> None:
    message = case.refused_images()
    assert "is not supported here: " in message
    assert "damaged" not in message


def _needs_its_encoding(case: Case) -> None:
    assert "--encoding cp437" in case.refused(case.unpacked)
    assert list(case.unpacked(encoding="cp437")) == ["Übung.txt"]


def _has_its_fields(case: Case) -> None:
    text, note = case.text()
    assert "scan" not in (note or "")
    words = ("Ada Example", "1234.50 EUR") if "filled" in case.name else ("All of the text is in fields",)
    assert all(word in text for word in words)


#: What each input is checked for: a function that raises, or returns two equal values.
EXPECTED: dict[str, Callable[[Case], Any]] = {
    "csv/stray_quote_1000.csv": lambda case: (OPEN_QUOTE.format(12) in case.refused(case.rows), True),
    "csv/unclosed.csv": lambda case: (OPEN_QUOTE.format(2) in case.refused(case.rows), True),
    "csv/tab.tsv": lambda case: ([list(row) for row in case.rows()], [["id", "name"]] * 2),
    "jsonl/ids_and_float.jsonl": lambda case: (
        [row["id"] for row in case.rows()],
        ["9007199254740993", "9007199254740995", "1.5"],
    ),
    "img/ycbcr_plain.tif": _keeps_its_colours,
    "img/ycbcr_lzw.tif": _keeps_its_colours,
    "img/pyramid_subifd.tif": lambda case: (case.thumbnail().size, (200, 133)),
    "img/photo.heic": lambda case: (case.thumbnail().size, (200, 133)),
    "img/planar_tiled.tif": _is_no_damage,
    "img/lab.tif": _is_no_damage,
    "img/trunc.jpg": lambda case: (
        re.findall("damaged or cut short|premature end of JPEG image", case.refused_images()),
        ["damaged or cut short", "premature end of JPEG image"],
    ),
    "img/anim.avif": _shows_its_first_frame,
    "arc/streamed.zip": lambda case: ({name: len(text) for name, text in case.unpacked().items()}, {"-": 6}),
    "arc/pzstd.tar.zst": lambda case: ([*case.unpacked()], ["note.txt"]),
    "arc/skippable_first.tar.zst": lambda case: ([*case.unpacked()], ["a.txt"]),
    "arc/sfx.zip": lambda case: ([*case.unpacked()], ["a.txt"]),
    "arc/dir_without_slash.zip": lambda case: ([*case.unpacked()], ["dir/a.txt"]),
    "arc/cp437_name.zip": _needs_its_encoding,
    "pdf/form_filled.pdf": _has_its_fields,
    "pdf/form_only.pdf": _has_its_fields,
    "pdf/trailing_zeros_5k.pdf": lambda case: (case.text()[0], "Hello world"),
}


def _inputs(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in folder.glob("*/*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] not in OTHERS)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        pytest.param(folder, name, id=f"{folder.parent.name}-{name}")
        for folder in FOLDERS
        for name in _inputs(folder)
    ],
)
def test_a_case_ends_as_its_table_says(folder: Path, name: str, root: Path) -> None:
    """A file that went wrong once comes out right, or is refused with one clear line."""
    if name not in EXPECTED:
        pytest.skip(f"{name} has no line here yet")
    found, expected = EXPECTED[name](Case(folder / name, root)) or (None, None)
    assert found == expected


def test_every_case_is_there() -> None:
    """The copies in the repository are whole."""
    assert _inputs(CASES) == sorted(EXPECTED)

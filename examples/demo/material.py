"""The material that the demo works on. Files of an earlier run are kept, and missing ones are made.

photographs/   rendered, or the folder of photographs that the command line names
tables/        CSVs of a few hundred thousand rows
documents/     PDFs
people.csv     the addresses of the mails
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from examples.demo.kinds import MakeMaterial
from millpond.tasks.errors import BadInput

#: The most photographs that are read from a folder that the command line names.
MAX_GIVEN_PHOTOGRAPHS = 400
#: An address that the demo's mail server refuses, to show how such a mail ends.
REFUSED = "nobody@refused.example.org"
#: A photograph without its end, to show how a task over a damaged file fails.
CUT_SHORT = "cut-short.jpg"

_FIRST = ("Ann", "Zoë", "Jürgen", "Wanjiku", "Łukasz", "Sofía", "Noor", "Åse", "Tomás", "Mei")
_LAST = ("Müller", "Okafor", "Lindqvist", "Rossi", "Nguyễn", "Novák", "Silva", "Dubois")
_TOWNS = ("Upper Weir", "Millbrook", "Oxbow", "Sluice End", "Tailrace")


@dataclass(frozen=True)
class Amounts:
    """The number of files and people of each sort."""

    photographs: int = 240
    tables: int = 4
    documents: int = 16
    people: int = 400


#: A tenth of the amounts, for a run of ten seconds.
QUICK = Amounts(photographs=24, tables=1, documents=2, people=40)


@dataclass(frozen=True)
class Material:
    """The folders and amounts of the material. `folder` is the demo's own, `photographs` may be another."""

    folder: Path
    photographs: Path
    amounts: Amounts

    def missing_tasks(self) -> list[MakeMaterial]:
        """Return the tasks that make the missing material."""
        return [job for job in self._tasks() if not Path(job.target).exists()]

    def photograph_files(self) -> list[Path]:
        """Return the paths of the photographs, and of a damaged one that this writes. Raises `BadInput`."""
        max_count = self.amounts.photographs if self.are_own_photographs else MAX_GIVEN_PHOTOGRAPHS
        paths = sorted(self.photographs.rglob("*"))
        jpegs = (path for path in paths if path.suffix.lower() in (".jpg", ".jpeg") and path.is_file())
        chosen = list(islice(jpegs, max_count))
        if not chosen:
            raise BadInput(f"{self.photographs}: holds no .jpg; name a folder of photographs, or none")
        damaged = self.folder / CUT_SHORT
        damaged.write_bytes(chosen[0].read_bytes()[:-10_000])
        return [*chosen, damaged]

    def table_files(self) -> list[Path]:
        """Return the paths of the CSVs."""
        return [self._table_path(number) for number in range(1, self.amounts.tables + 1)]

    def document_files(self) -> list[Path]:
        """Return the paths of the PDFs."""
        return [self._document_path(number) for number in range(1, self.amounts.documents + 1)]

    def write_people_file(self) -> Path:
        """Write the CSV of the campaign and return its path. The mail server refuses the last address."""
        path = self.folder / "people.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("email", "name", "town"))
            for number in range(self.amounts.people - 1):
                name = f"{_FIRST[number % len(_FIRST)]} {_LAST[number % len(_LAST)]}"
                rows.writerow((f"reader-{number}@example.org", name, _TOWNS[number % len(_TOWNS)]))
            rows.writerow((REFUSED, "Nobody", "Nowhere"))
        return path

    @property
    def are_own_photographs(self) -> bool:
        """True if the photographs are the demo's own."""
        return self.photographs.parent == self.folder

    def _tasks(self) -> Iterator[MakeMaterial]:
        """Yield a task for each file of the material. Photographs of the user's own are not made."""
        for number in range(1, self.amounts.tables + 1):
            yield MakeMaterial(what="table", number=number, target=str(self._table_path(number)))
        for number in range(1, self.amounts.documents + 1):
            yield MakeMaterial(what="document", number=number, target=str(self._document_path(number)))
        for number in range(1, self.amounts.photographs + 1 if self.are_own_photographs else 0):
            target = self.photographs / f"millpond-{number:03}.jpg"
            yield MakeMaterial(what="photograph", number=number, target=str(target))

    def _table_path(self, number: int) -> Path:
        return self.folder / "tables" / f"gauge-{number}.csv"

    def _document_path(self, number: int) -> Path:
        return self.folder / "documents" / f"manual-{number:02}.pdf"


def prepare_material(out: Path, photographs: Path | None, amounts: Amounts) -> Material:
    """Create the folders below `out`, and return the material for them. Raises `BadInput`."""
    folder = out / "material"
    for name in ("photographs", "tables", "documents"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if photographs is not None and not photographs.is_dir():
        raise BadInput(f"{photographs}: there is no such folder; name one that holds photographs")
    return Material(folder, (photographs or folder / "photographs").resolve(), amounts)

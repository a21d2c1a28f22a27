"""An option that the error of a file operation asks for exists on the command line. Real workers run."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from millpond.tasks.files.endings import ARCHIVE_ENDINGS, IMAGE_ENDINGS, TABLE_FORMATS
from millpond.tasks.settings import Files, Settings, child_environment
from millpond.worker.local.embedded import embedded
from tests.harness.forked_commands import Done, ForkedCommands

#: Runs a command of `millpond files`; and the folder that its workers may touch.
Fleet = tuple[Callable[..., Done], Path]
CASES = Path(__file__).parents[2] / "cases"


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, module_url: str, commands: ForkedCommands
) -> Iterator[Fleet]:
    """Run file workers on a configured broker. Yield a function that runs commands, and their root."""
    root = tmp_path_factory.mktemp("root")
    settings = Settings(broker_url=module_url, key_prefix="clifiles:", files=Files(roots=(str(root),)))
    with embedded(settings, pools=["files"]) as running:
        env = child_environment(running.settings)
        yield lambda *words: commands.run(["files", *words], env), root


@pytest.fixture
def folder(fleet: Fleet, request: pytest.FixtureRequest) -> Path:
    """Return a folder of this test's own below the root."""
    made = fleet[1] / request.node.name.replace("[", "-").rstrip("]")
    made.mkdir()
    return made


@pytest.mark.parametrize(
    ("command", "content", "asked", "options"),
    [
        ("parquet", b"a;b\n1;2\n", "--delimiter ';'", ["--delimiter", ";"]),
        ("parquet", b"a\tb\n1\t2\n", r"--delimiter '\t'", ["--delimiter", r"\t"]),
        ("parquet", b"a,b\n1,\xe9\n", "--encoding cp1252", ["--encoding", "cp1252"]),
        ("parquet", "a,b\n1,é\n".encode("utf-16"), "--encoding utf-16", ["--encoding", "utf-16"]),
    ],
)
def test_options_of_a_table_are_asked_for_and_given(
    fleet: Fleet, folder: Path, command: str, content: bytes, asked: str, options: list[str]
) -> None:
    """The error has the option as it is typed, and the option works."""
    (folder / "in.csv").write_bytes(content)
    failed = fleet[0](command, str(folder), "--out", str(folder / "out"))
    assert failed.returncode == 1
    assert asked in failed.stderr
    done = fleet[0](command, str(folder), "--out", str(folder / "out"), *options)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(folder / "out" / "in.parquet").num_columns == 2


def test_the_format_and_the_types_of_a_table(fleet: Fleet, folder: Path) -> None:
    """`--format` and `--type` serve a file name without a format and a column of an ambiguous type."""
    (folder / "in.data").write_bytes(b"id,n\n1,2\n")
    source = str(folder / "in.data")
    failed = fleet[0]("parquet", source, "--out", str(folder / "out"))
    assert "--format csv" in failed.stderr
    options = ["--format", "csv", "--type", "id=string", "--type", "n=float64"]
    done = fleet[0]("parquet", source, "--out", str(folder / "out"), *options)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(folder / "out" / "in.parquet").to_pylist() == [{"id": "1", "n": 2.0}]
    wrong = fleet[0]("parquet", source, "--out", str(folder / "out"), "--type", "id")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "COLUMN=TYPE" in wrong.stderr


def test_the_encoding_of_names(fleet: Fleet, folder: Path) -> None:
    """An umlaut in a zip from DOS is read with the encoding that the error asks for."""
    shutil.copy(CASES / "arc" / "cp437_name.zip", folder)
    failed = fleet[0]("unpack", str(folder), "--out", str(folder / "out"))
    assert "--encoding cp437" in failed.stderr
    done = fleet[0]("unpack", str(folder), "--out", str(folder / "out"), "--encoding", "cp437")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (folder / "out" / "cp437_name").iterdir()] == ["Übung.txt"]


def test_the_password_of_a_pdf(fleet: Fleet, folder: Path) -> None:
    """The password comes from a file: every user of a machine can read a command's arguments."""
    canvas = Canvas(str(folder / "in.pdf"), encrypt=StandardEncryption("sesame", strength=128))
    canvas.drawString(72, 700, "Hello")
    canvas.save()
    failed = fleet[0]("pdf-text", str(folder), "--out", str(folder / "out"))
    assert "--password-file" in failed.stderr
    (folder / "password").write_text("sesame\n")
    option = ["--password-file", str(folder / "password")]
    done = fleet[0]("pdf-text", str(folder), "--out", str(folder / "out"), *option)
    assert done.returncode == 0, done.stderr
    assert (folder / "out" / "in.txt").read_text() == "Hello"


def test_a_folder_is_searched_for_what_the_bodies_read(fleet: Fleet, folder: Path) -> None:
    """Every ending of the one list is found in a folder and understood by the operation."""
    for ending in TABLE_FORMATS:
        delimiter = TABLE_FORMATS[ending][1]
        lines = f"a{delimiter}b\n1{delimiter}2\n" if delimiter else '{"a": 1, "b": 2}\n'
        (folder / f"{ending[1:]}{ending}").write_text(lines)
    (folder / "other.txt").write_text("x")
    done = fleet[0]("parquet", str(folder), "--out", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    assert sorted(path.stem for path in (folder / "out").iterdir()) == sorted(
        each[1:] for each in TABLE_FORMATS
    )
    for ending in IMAGE_ENDINGS:
        shutil.copy(CASES / "img" / "photo.heic", folder / f"image{ending[1:]}{ending.upper()}")
    done = fleet[0]("thumbnail", str(folder), "--out", str(folder / "small"), "--format", "jpeg")
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "small").iterdir())) == len(IMAGE_ENDINGS)
    for ending in ARCHIVE_ENDINGS:
        shutil.copy(CASES / "arc" / "sfx.zip", folder / f"archive{ending}")
    done = fleet[0]("unpack", str(folder), "--out", str(folder / "unpacked"), "--json")
    assert done.stdout.count('"input"') == len(ARCHIVE_ENDINGS)


def test_a_folder_of_wrong_files_is_a_summary(fleet: Fleet, folder: Path) -> None:
    """A folder of wrong files is reported by a few names, the number of the others, and the reason once."""
    for at in range(300):
        (folder / f"{at}.csv").write_text(f'a,b\n{at},"x\n')
    done = fleet[0]("parquet", str(folder), "--out", str(folder / "out"))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) < 12
    assert any(line.startswith("… 295 more failed like this: ") for line in lines)
    assert "300 failed" in lines[-1]


def test_an_output_replaces_no_file_beside_its_input(fleet: Fleet, folder: Path) -> None:
    """With --out in a folder of inputs, a file that is there is kept and named; others are written."""
    other = folder / "other"
    other.mkdir()
    for name in ("a.heic", "b.heic", "c.heic", "c.heif", "other/d.heic"):
        shutil.copy(CASES / "img" / "photo.heic", folder / name)
    (folder / "a.jpg").write_bytes(b"the user's own")
    (folder / "d.jpg").write_bytes(b"the user's own, too")
    inputs = [str(path) for path in (*sorted(folder.glob("*.hei?")), other)]
    done = fleet[0]("convert", *inputs, "--format", "jpeg", "--out", str(folder))
    assert done.returncode == 1
    assert (folder / "a.jpg").read_bytes() == b"the user's own"
    assert (folder / "d.jpg").read_bytes() == b"the user's own, too"
    assert f"{folder}/a.jpg is there already" in done.stderr
    assert "another input writes c.jpg already" in done.stderr
    assert {path.name for path in folder.glob("*.jpg")} == {"a.jpg", "b.jpg", "c.jpg", "d.jpg"}

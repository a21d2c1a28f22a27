"""`make demo`, at a tenth of its size: its output, its files, its end."""

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from tests.conftest import Alive
from tests.harness.run_to_end import run_to_end

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "examples.demo", "--quick"]


def demo(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run the demo to its end."""
    return run_to_end([*DEMO, *map(str, arguments)], cwd=ROOT)


@pytest.mark.slow
def test_the_demo_does_the_main_job_and_a_second_run_keeps_the_material(tmp_path: Path) -> None:
    """Only the intended failures fail, each mail arrives once, the thumbnails are there."""
    out = tmp_path / "out"
    first = demo("--out", out)
    assert (first.returncode, first.stderr) == (0, "")
    assert "mail: 39 arrived, each once" in first.stdout
    assert f"thumbnails: 24 to look at in {out / 'thumbnails.html'}" in first.stdout
    assert len(re.findall(r"^failed \(as it should\): ", first.stdout, re.M)) == 2
    assert re.search(r"^ +thumbnails +files +24 +1 ", first.stdout, re.M)
    assert {_size(path) for path in (out / "thumbnails").iterdir()} == {(480, 360), (360, 480)}
    assert {path.suffix for path in (out / "parquet").iterdir()} == {".parquet"}
    second = demo("--out", out)
    assert (second.returncode, "kept from the last time" in second.stdout) == (0, True)


@pytest.mark.slow
def test_photographs_of_yours_are_taken_and_not_touched(tmp_path: Path) -> None:
    """A folder of photographs, with one in a folder below, is worked on in place of the rendered ones."""
    yours, out = tmp_path / "yours", tmp_path / "out"
    for place in (yours / "a.JPG", yours / "below" / "a.jpeg"):
        place.parent.mkdir(exist_ok=True)
        Image.effect_noise((900, 600), 60).save(place, "JPEG")
    done = demo("--out", out, yours)
    assert done.returncode == 0, done.stderr
    assert len(list((out / "thumbnails").iterdir())) == 2
    assert sorted(path.name for path in yours.rglob("*") if path.is_file()) == ["a.JPG", "a.jpeg"]
    assert not list((out / "material" / "photographs").iterdir())


@pytest.mark.slow
def test_interrupt_ends_the_demo_in_order(tmp_path: Path, alive: Alive) -> None:
    """After Ctrl-C at a terminal the demo prints one line, ends with 130, and leaves no process."""
    ours, theirs = pty.openpty()
    command = subprocess.Popen(
        [*DEMO, "--out", str(tmp_path)],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = _read_until(ours, rb" [1-9]\d*/27")
    family = psutil.Process(command.pid).children(recursive=True)
    assert len(family) >= 4, said
    command.send_signal(signal.SIGINT)
    said = _read_until(ours, rb"never said")
    assert command.wait(60) == 130
    assert b"Stopped. Nothing is left running" in said
    assert b"Traceback" not in said
    assert not alive(family)
    os.close(ours)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "/dev/null/out"), "make demo: "),
        (("no-such-folder",), "make demo: no-such-folder: there is no such folder"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """A mistake is answered by one line, before any process starts."""
    done = demo(*(("--out", str(tmp_path)) if "--out" not in arguments else ()), *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _read_until(descriptor: int, pattern: bytes) -> Any:
    """Read a terminal until it shows a pattern or is closed."""
    said = b""
    while not re.search(pattern, said):
        try:
            more = os.read(descriptor, 4096)
        except OSError:  # Linux's way to report that no process has the terminal open any more
            return said
        if not more:
            return said
        said += more
    return said

"""The comparison of image libraries starts a process for each measurement."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("images.py")


@pytest.mark.parametrize("library", ["pillow", "pyvips"])
def test_one_measurement_prints_its_figures(library: str, tmp_path: Path) -> None:
    """The process of a measurement prints the time, the memory and the length of the result as JSON."""
    pytest.importorskip({"pillow": "PIL"}.get(library, library))
    pyvips = pytest.importorskip("pyvips")
    pyvips.Image.black(640, 480, bands=3).jpegsave(str(tmp_path / "0.jpg"))
    command = [sys.executable, SCRIPT, "--one", library, tmp_path, "jpeg 12 MP -> jpeg 320", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"seconds", "mb", "kb"}

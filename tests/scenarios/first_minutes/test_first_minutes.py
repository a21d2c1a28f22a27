"""A newcomer in a fresh environment is never stopped by the README, from its first line to its last."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenarios.first_minutes.following import Reader, Stopped, copy_clone, fresh_env
from tests.scenarios.first_minutes.page import Command, File, steps

TOP = Path(__file__).parents[3]
README = (TOP / "README.md").read_text()
#: Three on a machine with nothing else to do.
SILENT_SECONDS = 3.0 * 2


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """A newcomer with an empty home and the Python of these tests, in a folder without a clone."""
    (tmp_path / "home").mkdir()
    (tmp_path / "clone").mkdir()
    python = Path(sys.base_prefix, "bin", "python3")
    return Reader(tmp_path / "clone", fresh_env(tmp_path / "home", python))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_readme_is_followed_from_a_clone(reader: Reader) -> None:
    """Every command succeeds and prints the page's output, and no make target is silent for seconds."""
    copy_clone(TOP, reader.clone)
    reader.follow(README)
    silent = {done.text: done.silent_seconds for done in reader.done if done.text.startswith("make ")}
    assert silent
    assert max(silent.values()) < SILENT_SECONDS, silent


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_readme_is_followed_from_a_wheel(reader: Reader, tmp_path: Path) -> None:
    """Without a clone, the installed wheel does all that the page shows."""
    build = [sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(TOP)]
    subprocess.run(build, check=True)
    (reader.wheel,) = tmp_path.glob("*.whl")
    reader.follow(README)
    assert any(done.text == "python greet.py" for done in reader.done)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_command_without_its_extras_names_all_of_them_at_once(reader: Reader, tmp_path: Path) -> None:
    """Without extras, each command names all that it needs in one line, and that line's command works."""
    copy_clone(TOP, reader.clone)
    (tmp_path / "photo.jpg").write_bytes(b"no photograph")
    commands = {
        "up": "embedded,flower,email,files",
        "flower": "flower",
        "gateway": "gateway",
        f"files checksum {tmp_path}/photo.jpg": "embedded,files",
        "email send --from a@example.org --to b@example.org --subject s --text t": "embedded,email",
    }
    asked = [f"$ .venv/bin/millpond {each} > said 2>&1; test $? = 1 && cat said" for each in commands]
    page = ["```console", "$ python3 -m venv .venv", "$ .venv/bin/pip install .", *asked, "```"]
    lines = []
    for step in steps("\n".join(page)):
        assert isinstance(step, Command)
        ended = (reader.terminals or [reader._free_terminal()])[0].run(step.text, within_seconds=300)
        assert ended.code == 0, ended.printed
        lines.append(ended.printed)
    for said, extras in zip(lines[2:], commands.values(), strict=True):
        *_, line = said.splitlines()
        assert f"[{extras}]'" in line
        assert ("Traceback" in said, "should not have happened" in said) == (False, False)
    install = lines[-1].rpartition("Install with: ")[2].strip()
    assert reader.terminals[0].run(install, within_seconds=300).code == 0


def test_every_block_of_the_readme_can_be_followed() -> None:
    """Each block of Python and TOML is a file that the page names, and the page enters commands."""
    found = list(steps(README))
    assert {each.name for each in found if isinstance(each, File)} >= {"send.py", "millpond.toml"}
    assert sum(isinstance(each, Command) for each in found) > 10


def test_the_first_example_that_sends_is_a_plain_one() -> None:
    """The first example that sends has neither `once=` nor `for_=`."""
    first = next(each for each in steps(README) if isinstance(each, File) and "client.send(" in each.text)
    assert "once" not in first.text


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("```console\n$ true\n$ false\n```", "README.md:3: $ false\nexit code 1"),
        ("```console\n$ echo a\nb…\n```", "does not print 'b…'"),
        ("```console\n$ export A='…'\n```", "nothing has printed a line to copy"),
        ("```console\n$ millpond up\n```", "README.md:2: $ millpond up\nended with 127"),
    ],
)
def test_a_line_that_fails_stops_the_reader(page: str, said: str, reader: Reader) -> None:
    """A command that fails or prints something else is found, with its line."""
    with pytest.raises(Stopped) as stopped:
        reader.follow(page)
    assert said in str(stopped.value)


def test_a_block_without_a_file_is_refused(reader: Reader) -> None:
    """A block of Python without a named file is an error of the page."""
    with pytest.raises(ValueError, match=r"README.md:2: no file is named"):
        reader.follow("Like this:\n```python\nprint()\n```")


def test_a_terminal_keeps_its_folder_and_its_variables(reader: Reader) -> None:
    """`cd` and `export` hold for the commands after them."""
    reader.follow("```console\n$ mkdir a && cd a\n$ export B=c\n$ pwd; echo $B\n…/a\nc\n```")

"""The pages of the repository name files and folders that exist."""

import re
import subprocess
from pathlib import Path, PurePosixPath

import pytest

TOP = Path(__file__).parents[2]
FILES = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=TOP, text=True).split(
    "\n"
)
KNOWN = {*FILES, *(str(folder) for file in FILES for folder in PurePosixPath(file).parents)}
PAGES = [each for each in FILES if each.endswith(".md") and each != "CHANGELOG.md" and (TOP / each).exists()]
#: A file or a folder in code, and the target of a link within the repository.
NAMED = re.compile(r"`([\w./-]+(?:\.(?:py|lua|md|toml|ya?ml|json|html|css|js)|/))`|\]\(([^)#:]+)\)")
#: Files that the reader writes.
READERS_OWN = {"millpond.toml", "millpond.py"}


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page: str) -> None:
    """A path stands from the page's folder or from the top; a bare name is in the page's folder or below."""
    text, here = (TOP / page).read_text(), str(PurePosixPath(page).parent)
    below = "" if here == "." else f"{here}/"
    own = READERS_OWN | (
        set(re.findall(r"`(\w+\.py)`[^`]*```python", text)) if page == "README.md" else set()
    )
    for match in NAMED.finditer(text):
        name = (match[1] or match[2]).rstrip("/")
        places = {name, str(PurePosixPath(below + name)), _resolved(here, name)}
        found = places & KNOWN or [
            each for each in KNOWN if each.startswith(below) and each.endswith(f"/{name}")
        ]
        assert found or name in own, f"{page} names {name}, which does not exist"


def _resolved(here: str, name: str) -> str:
    """Return a path relative to the top, for a name such as `../docker-compose.yml`."""
    return str((TOP / here / name).resolve().relative_to(TOP)) if name.startswith("..") else name

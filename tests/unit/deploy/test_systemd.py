"""The units of deploy/systemd/ pass systemd's own checks and agree with the pools table."""

import configparser
import re
import shutil
from pathlib import Path

import pytest

from millpond.tasks.pools import DRAIN_SECONDS, STOP_MARGIN_SECONDS, PoolsTable
from tests.harness.run_to_end import run_to_end

FOLDER = Path(__file__).parents[3] / "deploy" / "systemd"
POOLS = PoolsTable().pools
SERVICES = sorted(FOLDER.glob("*.service"))
#: The memory of a worker beside its prefork children.
WORKER_MB = 512
#: The exposure by `systemd-analyze security`, from 0 to 10, that no unit is above.
MOST_EXPOSED = 2.0


def unit(path: Path) -> configparser.ConfigParser:
    """Read a unit or a drop-in; of a setting that stands twice, the last."""
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(path)
    return parsed


def service(pool: str) -> dict[str, str]:
    """Return the settings of a pool's service: those of the template, then those of its drop-ins."""
    settings = dict(unit(FOLDER / "millpond-worker@.service")["Service"])
    for drop_in in sorted(FOLDER.glob(f"millpond-worker@{pool}.service.d/*.conf")):
        settings |= dict(unit(drop_in)["Service"])
    return settings


@pytest.fixture
def analyze() -> str:
    """Return the path of systemd-analyze; skip where there is no systemd."""
    return shutil.which("systemd-analyze") or pytest.skip("systemd is not installed here")


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_systemd_understands_it(path: Path, analyze: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing to say, once the command is there."""
    for each in FOLDER.iterdir():
        target = tmp_path / each.name
        if each.is_dir():
            shutil.copytree(each, target)
        elif each.suffix in (".service", ".target"):
            target.write_text(each.read_text().replace("/opt/millpond/bin/millpond", "/bin/true"))
    name = path.name.replace("@", "@files")
    if name != path.name:
        (tmp_path / name).symlink_to(tmp_path / path.name)
    done = run_to_end([analyze, "verify", tmp_path / name])
    ours = [line for line in done.stderr.splitlines() if "millpond" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_it_is_hardened(path: Path, analyze: str) -> None:
    """`systemd-analyze security` finds little that a broken-in service could reach."""
    command = [analyze, "security", "--offline=true", "--no-pager", str(path)]
    said = run_to_end(command).stdout
    found = re.search(r"Overall exposure level for \S+ ([\d.]+)", said)
    assert found, said
    assert float(found[1]) <= MOST_EXPOSED


def test_the_gateway_may_use_its_whole_deadline() -> None:
    """systemd kills the gateway when the drain deadline and the margin after it are over, not before."""
    settings = unit(FOLDER / "millpond-gateway.service")["Service"]
    assert settings["TimeoutStopSec"] == f"{DRAIN_SECONDS + STOP_MARGIN_SECONDS:.0f}"


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_may_use_its_whole_deadline(pool: str) -> None:
    """systemd kills a pool when the drain deadline and the margin after it are over, not before."""
    assert service(pool)["TimeoutStopSec"] == f"{DRAIN_SECONDS + STOP_MARGIN_SECONDS:.0f}"
    assert service(pool)["KillMode"] == "mixed"


def test_the_pool_for_files_has_a_core_and_its_memory_for_each_slot() -> None:
    """Slots, processors and memory of the pool for files go together by the table's memory cap."""
    settings = service("files")
    name, _, slots = settings["Environment"].partition("=")
    cap = POOLS["files"].max_memory_per_child_mb
    assert cap is not None
    assert name == "MILLPOND_TABLE__POOLS__FILES__CONCURRENCY"
    assert settings["CPUQuota"] == f"{int(slots) * 100}%"
    assert settings["MemoryMax"] == f"{int(slots) * cap + WORKER_MB}M"


def test_every_drop_in_is_of_a_pool() -> None:
    """A drop-in names a pool of the table."""
    named = {path.name for path in FOLDER.glob("millpond-worker@*.service.d")}
    assert named <= {f"millpond-worker@{pool}.service.d" for pool in POOLS}

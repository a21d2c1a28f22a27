"""Run the main job on real material, everything on this machine: `make demo`, or with photographs of yours
`make demo PHOTOS=~/Pictures`.

A broker, the pools for mail and for files and a mail server are started; material that is not there yet is
made; everything goes through both pools at once; the outputs are counted, checked and left in demo-out/.
"""

import argparse
import resource
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic

from examples.demo import report
from examples.demo.material import QUICK, REFUSED, Amounts, Material, prepared
from examples.demo.running import Run, run_all
from examples.demo.sink import Mailbox, mailbox
from examples.demo.view import patience
from examples.demo.work import making, the_work
from millpond.producer.client import Client
from millpond.tasks.errors import BadInput, MillpondError
from millpond.tasks.settings import Files, Settings, Smtp
from millpond.worker.local.embedded import Embedded, embedded

POOLS = ("email", "files")
ROOM_BYTES = 1_500_000_000


def main() -> int:
    """Run the demo and return its exit code: 0 all is well, 1 something is not, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "photographs", nargs="?", type=Path, help="a folder of JPEGs, instead of rendered ones"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), help="where everything goes (default: demo-out)"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    asked = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    began = monotonic()
    try:
        wrong = demo(asked.out.resolve(), asked.photographs, QUICK if asked.quick else Amounts())
    except KeyboardInterrupt:
        print("\nStopped. Nothing is left running; what was made is kept for the next time.")
        return 130
    except (MillpondError, OSError) as error:
        print(f"make demo: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    took = f"{monotonic() - began:.0f} s, {_cpu_seconds():.0f} s of processor time"
    print(f"Took {took}. Everything has stopped.")
    for line in wrong:
        print(f"make demo: {line}", file=sys.stderr)
    return 1 if wrong else 0


def demo(out: Path, photographs: Path | None, amounts: Amounts) -> list[str]:
    """Run the demo; return its faults."""
    material = prepared(out, photographs, amounts)
    if shutil.disk_usage(out).free < ROOM_BYTES:
        raise BadInput(f"{out} has less than {ROOM_BYTES / 1e9} GB of room: name another place with --out")
    print("Starting a broker, a pool for mail and one for files …", flush=True)
    with (
        mailbox(refused=REFUSED) as box,
        _running(material, out, box) as pond,
        Client(settings=pond.settings) as client,
    ):
        for name in POOLS:
            pool = pond.settings.table.pools[name]
            print(f"  {name}: {pool.slots} slots ({pool.executor})")
        _make(client, material)
        jobs = the_work(material, out)
        count, size = sum(len(job.messages) for job in jobs), sum(job.bytes for job in jobs)
        print(f"Sending {count:,} tasks over {size / 1e6:,.0f} MB through both pools at once …", flush=True)
        return _told(run_all(client, jobs), box, out)


@contextmanager
def _running(material: Material, out: Path, box: Mailbox) -> Iterator[Embedded]:
    """Run a broker of the demo's own and the pools, apart from this machine's configuration."""
    settings = Settings(
        broker_url=None,
        kinds=("examples.demo.kinds",),
        files=Files(roots=(str(out), str(material.photographs))),
        smtp=Smtp(host="127.0.0.1", port=box.port),
    )
    with ExitStack() as stack:
        with patience("starting"):
            pond = stack.enter_context(embedded(settings, pools=POOLS))
        yield pond
        with patience("stopping"):
            stack.close()


def _make(client: Client, material: Material) -> None:
    missing = material.missing()
    if not missing:
        print(f"Material: {material.folder} (kept from the last time)")
        return
    print(f"Making {len(missing)} photographs, tables and PDFs, once, in the pool itself …", flush=True)
    (run,) = run_all(client, [making(missing)])
    for line in report.failures([run]):
        raise BadInput(f"the material could not be made, {line}")


def _told(runs: list[Run], box: Mailbox, out: Path) -> list[str]:
    """Print the report; return its faults."""
    report.show_table(runs)
    for line in report.failures(runs):
        print(line)
    by_name = {run.job.name: run for run in runs}
    lost_or_doubled = report.mail_faults(by_name["mails"], box)
    print(f"mail: {sum(box.arrived.values())} arrived" + ("" if lost_or_doubled else ", each once"))
    page = out / "thumbnails.html"
    print(f"thumbnails: {report.write_page(by_name['thumbnails'], page)} to look at in {page}")
    return lost_or_doubled + [f"{each.id}: {each.error}" for run in runs for each in run.unexpected]


def _cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    sys.exit(main())

"""Run the main job on real material, on this machine: `make demo`, or `make demo PHOTOS=~/Pictures`.

It starts a broker, the pools for mail and for files, and a mail server. It makes the material that is
missing, sends everything through both pools at once, and counts and checks the outputs in demo-out/.
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
from examples.demo.jobs import demo_jobs, material_job
from examples.demo.mailbox import Mailbox, serve_mailbox
from examples.demo.material import QUICK, REFUSED, Amounts, Material, prepare_material
from examples.demo.running import Run, run_all
from examples.demo.view import print_step
from millpond.producer.client import Client
from millpond.tasks.errors import BadInput, MillpondError
from millpond.tasks.settings import Files, Settings, Smtp
from millpond.worker.local.embedded import Embedded, embedded

POOLS = ("email", "files")
#: The free space that the outputs may need.
ROOM_BYTES = 1_500_000_000


def main() -> int:
    """Run the demo and return its exit code: 0 without faults, 1 with faults, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "photographs", nargs="?", type=Path, help="a folder of JPEGs, instead of rendered ones"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), help="where everything goes (default: demo-out)"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    began = monotonic()
    try:
        amounts = QUICK if options.quick else Amounts()
        faults = run_demo(options.out.resolve(), options.photographs, amounts)
    except KeyboardInterrupt:
        print("\nStopped. Nothing is left running; what was made is kept for the next time.")
        return 130
    except (MillpondError, OSError) as error:
        print(f"make demo: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    took = f"{monotonic() - began:.0f} s, {_cpu_seconds():.0f} s of processor time"
    print(f"Took {took}. Everything has stopped.")
    for line in faults:
        print(f"make demo: {line}", file=sys.stderr)
    return 1 if faults else 0


def run_demo(out: Path, photographs: Path | None, amounts: Amounts) -> list[str]:
    """Run the demo, and return its faults as lines. Raises `BadInput` for a disk without room."""
    material = prepare_material(out, photographs, amounts)
    if shutil.disk_usage(out).free < ROOM_BYTES:
        raise BadInput(f"{out} has less than {ROOM_BYTES / 1e9} GB of room: name another place with --out")
    print("Starting a broker, a pool for mail and one for files …", flush=True)
    with (
        serve_mailbox(refused=REFUSED) as mailbox,
        _start_pond(material, out, mailbox) as pond,
        Client(settings=pond.settings) as client,
    ):
        for name in POOLS:
            pool = pond.settings.table.pools[name]
            print(f"  {name}: {pool.slots} slots ({pool.executor})")
        _make_missing(client, material)
        jobs = demo_jobs(material, out)
        count, size = sum(len(job.messages) for job in jobs), sum(job.bytes for job in jobs)
        print(f"Sending {count:,} tasks over {size / 1e6:,.0f} MB through both pools at once …", flush=True)
        return _print_report(run_all(client, jobs), mailbox, out)


@contextmanager
def _start_pond(material: Material, out: Path, mailbox: Mailbox) -> Iterator[Embedded]:
    """Run a broker and pools during the block. The broker that this machine's settings name is not used."""
    settings = Settings(
        broker_url=None,
        kinds=("examples.demo.kinds",),
        files=Files(roots=(str(out), str(material.photographs))),
        smtp=Smtp(host="127.0.0.1", port=mailbox.port),
    )
    with ExitStack() as stack:
        with print_step("starting"):
            pond = stack.enter_context(embedded(settings, pools=POOLS))
        yield pond
        with print_step("stopping"):
            stack.close()


def _make_missing(client: Client, material: Material) -> None:
    """Make the material that is missing, by tasks of the pool. Raises `BadInput` if a task fails."""
    missing = material.missing_tasks()
    if not missing:
        print(f"Material: {material.folder} (kept from the last time)")
        return
    print(f"Making {len(missing)} photographs, tables and PDFs, once, in the pool itself …", flush=True)
    (run,) = run_all(client, [material_job(missing)])
    for line in report.failures([run]):
        raise BadInput(f"the material could not be made, {line}")


def _print_report(runs: list[Run], mailbox: Mailbox, out: Path) -> list[str]:
    """Print the report, and return its faults as lines: lost mails, and failures that were not intended."""
    report.show_table(runs)
    for line in report.failures(runs):
        print(line)
    by_name = {run.job.name: run for run in runs}
    mail_faults = report.mail_faults(by_name["mails"], mailbox)
    print(f"mail: {sum(mailbox.arrived.values())} arrived" + ("" if mail_faults else ", each once"))
    page = out / "thumbnails.html"
    print(f"thumbnails: {report.write_page(by_name['thumbnails'], page)} to look at in {page}")
    return mail_faults + [f"{result.id}: {result.error}" for run in runs for result in run.unexpected]


def _cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    sys.exit(main())

"""`millpond schedules`: list the schedules with their last and next periods."""

import typer

from millpond.monitor.cli.output import JsonLines
from millpond.monitor.cli.store import open_store

app = typer.Typer()


@app.command(epilog="Example: millpond schedules --json")
def schedules(as_json: JsonLines = False) -> None:
    """List the schedules: last and next period, missed periods, and the leading scheduler."""
    import json
    from dataclasses import asdict

    from millpond.broker import schedules as broker_schedules

    with open_store() as store:
        all_schedules = broker_schedules.read_all_schedules(store)
        leader = broker_schedules.read_leader(store)
    if as_json:
        for schedule in all_schedules:
            print(json.dumps({**asdict(schedule), "leader": leader}))
        return
    for schedule in all_schedules:
        missed = f", {schedule.missed} missed" if schedule.missed else ""
        trouble = f" WAITS: {schedule.trouble}" if schedule.trouble else ""
        times = f"last {_format_time(schedule.last_due_ms)}  next {_format_time(schedule.next_due_ms)}"
        words = f"{schedule.name}  {schedule.kind}  {schedule.timing}  {times}"
        print(f"{words}  {schedule.fired} sent{missed}{trouble}")
    print(f"leader: {leader or 'none runs; start one with `millpond scheduler`'}")


def _format_time(ms: int) -> str:
    """Return a time (ms since 1970) in ISO 8601, or `never` for 0."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds") if ms else "never"

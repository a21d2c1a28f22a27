"""`millpond doctor`: check broker, workers, kinds, extras, mail and storage, with a remedy for each fault."""

from typing import TYPE_CHECKING

import typer

from millpond.broker.message_names import replace_unprintable
from millpond.monitor.cli.output import JsonLines
from millpond.monitor.doctor.finding import Finding, fail, ok, warn
from millpond.tasks.errors import MillpondError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from millpond.tasks.settings import Settings

app = typer.Typer()


@app.command(epilog="Example: millpond doctor --json")
def doctor(as_json: JsonLines = False) -> None:
    """Check settings, broker, workers, kinds, middleware, extras, mail and storage, and print the remedies.

    Nothing is changed. Exits with 1 if a check fails, and with 0 if there are only warnings.
    """
    import json
    from dataclasses import asdict

    counts = {"ok": 0, "warn": 0, "fail": 0}
    for finding in run_checks():
        counts[finding.status] += 1
        print(json.dumps(asdict(finding)) if as_json else "\n".join(_finding_lines(finding)), flush=True)
    if not as_json:
        warnings = f"{counts['warn']} warning{'' if counts['warn'] == 1 else 's'}"
        print(f"{counts['ok']} ok, {warnings}, {counts['fail']} failed")
    raise typer.Exit(1 if counts["fail"] else 0)


def run_checks() -> "Iterator[Finding]":
    """Run all checks, and yield each finding as soon as it is known.

    If the settings cannot be read, that is the only finding.
    """
    from functools import partial

    from millpond.monitor.doctor import machine
    from millpond.tasks.process.configured_broker import find_broker
    from millpond.tasks.settings import read_setting_sources, settings

    try:
        configured, read = settings(), read_setting_sources()
    except MillpondError as error:
        yield fail("settings", str(error), "correct it; every setting: millpond config --markdown")
        return
    variables = len(set(read.variables.values()))
    file = f"read from {read.file.path}" if read.file else "no millpond.toml here"
    yield ok("settings", f"{file}, {variables} set by variables")
    for name in read.unused:
        yield warn(
            "settings",
            f"{name} is set, and is not a setting of Millpond",
            "unset it, unless another program uses it",
        )
    checks = [
        machine.check_middleware,
        machine.check_extras,
        machine.check_templates,
        machine.check_storage,
    ]
    try:
        configured, origin = find_broker(configured)
        checks.insert(0, partial(_check_broker_and_fleet, origin=origin))
    except SettingsError as error:
        yield fail("broker", str(error), "correct it, or set MILLPOND_BROKER_URL")
    for check in checks:
        try:
            yield from check(configured)
        except MillpondError as error:
            yield fail("broker", str(error), "see broker_url: millpond config broker_url")
    yield machine.check_mail(configured)


def _check_broker_and_fleet(settings_in_use: "Settings", *, origin: str | None) -> "Iterator[Finding]":
    """Yield the findings on the broker, on the modules of kinds, and on the workers.

    `settings_in_use` are the settings with the broker that was found. `origin` is where, None if it is that
    of the settings. Raises `BrokerAway`, or another `MillpondError` for a URL that cannot be used.
    """
    from millpond.broker.connection import connect
    from millpond.broker.server import server_time_ms
    from millpond.broker.url import BrokerURL
    from millpond.monitor.doctor import broker, fleet

    if settings_in_use.broker_url is None:
        yield fail(
            "broker", "no broker is configured", "set MILLPOND_BROKER_URL, or start one here: millpond up"
        )
        return
    store = connect(
        settings_in_use.broker_url, **settings_in_use.broker_options, copies=settings_in_use.send_copies
    )
    try:
        server_time_ms(store)
        whose = "" if origin is None else f", of {origin}"
        yield ok("broker", f"{BrokerURL.parse(settings_in_use.broker_url)} answers{whose}")
        yield from broker.examine_broker(store)
        kinds, import_faults = _import_kinds(settings_in_use)
        yield from import_faults
        yield from fleet.examine_fleet(store, settings_in_use.table, kinds)
    finally:
        store.close()


def _import_kinds(settings: "Settings") -> tuple[dict[str, type], list[Finding]]:
    """Import the modules of the settings.

    Return the contracts by kind, and a finding for each failed import.
    """
    from millpond.tasks.contract import contracts_by_kind, load_shipped_contracts
    from millpond.tasks.module_loading import import_modules

    load_shipped_contracts()
    faults = []
    for setting, modules in (
        ("kinds", settings.kinds),
        ("gateway.contracts", settings.gateway.contracts),
    ):
        for module in modules:
            try:
                import_modules([module], setting=setting)
            except SettingsError as error:
                faults.append(fail("kinds", str(error), f"correct {setting}, or the module"))
    return dict(contracts_by_kind()), faults


def _finding_lines(finding: Finding) -> "Iterator[str]":
    """Yield a finding as lines that fit the terminal: status, check and text, then the remedy below."""
    head = f"{finding.status:<4}  {finding.check:<11}  "
    indent = " " * len(head)
    yield from _wrap(finding.found, head, indent)
    if finding.do:
        yield from _wrap(finding.do, f"{indent}-> ", f"{indent}   ")


def _wrap(text: str, first_indent: str, indent: str) -> list[str]:
    """Return a text as lines of the terminal's width. Words longer than a line are not broken."""
    import shutil
    import textwrap

    return textwrap.wrap(
        replace_unprintable(text),
        max(40, shutil.get_terminal_size().columns),
        initial_indent=first_indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )

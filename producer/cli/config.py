"""`millpond config`: show every setting in force, its origin and its valid values."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from millpond.tasks.configuration.catalog import SettingInForce

app = typer.Typer()


@app.command(epilog="Example: millpond config smtp pools.email")
def config(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Only these settings or tables, as in smtp or pools.email."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object a line.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Write the page of all settings and their defaults.")
    ] = False,
) -> None:
    """Show every setting in force, its origin and its valid values; secrets are hidden.

    The output is a millpond.toml. A setting comes from a variable, from a line of the file, from the
    `millpond up` that runs here, or is the default.
    """
    import json
    import sys

    from millpond.tasks.configuration.settings_page import settings_page
    from millpond.tasks.settings import Settings

    if markdown:
        sys.stdout.write(settings_page(Settings))
        return
    in_force, unused = _read_settings_in_force()
    selected = _select_settings(in_force, names or [])
    if as_json:
        for setting in selected:
            print(json.dumps(setting.as_object()))
    else:
        print("\n".join(_toml_lines(selected)))
    for name in unused:
        print(f"# {name} is set, and is no setting of Millpond", file=sys.stderr)


def _read_settings_in_force() -> "tuple[list[SettingInForce], tuple[str, ...]]":
    """Return the settings in force, and the names that are set and are no settings.

    If none is configured, the broker of the Celery application is in force, or that of a running `millpond
    up` on this machine. Secrets in URLs are hidden.
    """
    import re
    from contextlib import suppress
    from dataclasses import replace

    from millpond.broker.url import BrokerURL
    from millpond.tasks.configuration.catalog import settings_in_force
    from millpond.tasks.errors import SettingsError
    from millpond.tasks.process.configured_broker import find_broker
    from millpond.tasks.settings import read_setting_sources, settings

    configured, written = settings(), read_setting_sources()
    origin = None
    with suppress(SettingsError):  # an application that cannot be imported has no broker to show
        configured, origin = find_broker(configured)
    in_force = []
    for setting in settings_in_force(configured, written):
        if setting.name == "broker_url" or (setting.name == "key_prefix" and setting.origin == "default"):
            setting = replace(setting, origin=origin or setting.origin)
        if setting.name == "broker_url" and configured.broker_url:
            setting = replace(setting, value=str(BrokerURL.parse(configured.broker_url)))
        if setting.name == "traces_endpoint" and setting.value:
            setting = replace(setting, value=re.sub(r"://[^/]*@", "://**@", setting.value))
        in_force.append(setting)
    return in_force, written.unused


def _select_settings(in_force: "list[SettingInForce]", names: "Iterable[str]") -> "list[SettingInForce]":
    """Return the settings with these names and in these tables, or all settings if there are no names.

    Raises `BadInput` for a name that no setting and no table has.
    """
    from millpond.tasks.errors import BadInput
    from millpond.tasks.name_suggestions import closest_name

    selected: list[SettingInForce] = []
    for name in names:
        unquoted = name.replace('"', "")
        matching = [
            setting for setting in in_force if f"{setting.name}.".replace('"', "").startswith(f"{unquoted}.")
        ]
        if not matching:
            known = {setting.name for setting in in_force}
            tables = {setting.table for setting in in_force} | {path.partition(".")[0] for path in known}
            suggestion = closest_name(name, known | tables - {""})
            hint = f"did you mean {suggestion!r}?" if suggestion else "leave the name out to see them all"
            raise BadInput(f"no setting or table is named {name!r}: {hint}")
        selected += [setting for setting in matching if setting not in selected]
    return selected or in_force


def _toml_lines(in_force: "list[SettingInForce]") -> "Iterator[str]":
    """Yield the lines of a millpond.toml: the settings outside of tables first, then table after table.

    The origin and the valid values of a setting are a comment beside it, or above it if the line is too long.
    """
    import shutil
    import textwrap

    from millpond.tasks.configuration.catalog import HIDDEN, to_toml
    from millpond.tasks.configuration.model_fields import describe_values

    width, table = shutil.get_terminal_size().columns, ""
    for setting in sorted(in_force, key=lambda setting: "." in setting.name):
        name = setting.key
        if setting.table != table:
            table = setting.table
            yield f"\n[{table}]"
        has_value = setting.value is not None and setting.value != HIDDEN
        entry = (
            f"{name} = {to_toml(setting.value)}" if has_value else f"# {name} {setting.value or '(not set)'}"
        )
        comment = f"{setting.origin}; {describe_values(setting.setting.field)}"
        if len(entry) + len(comment) + 4 <= width and has_value:
            yield f"{entry}  # {comment}"
        else:
            yield from textwrap.wrap(comment, max(20, width), initial_indent="# ", subsequent_indent="# ")
            yield entry

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
    in_force, unused = _settings_in_force()
    shown = _select_settings(in_force, names or [])
    if as_json:
        for each in shown:
            print(json.dumps(each.as_object()))
    else:
        print("\n".join(_toml_lines(shown)))
    for name in unused:
        print(f"# {name} is set, and is no setting of Millpond", file=sys.stderr)


def _settings_in_force() -> "tuple[list[SettingInForce], tuple[str, ...]]":
    """Return the settings in force, those of a local `millpond up` included, and the unused names."""
    import re
    from dataclasses import replace

    from millpond.broker.url import BrokerURL
    from millpond.tasks.configuration import sources
    from millpond.tasks.configuration.catalog import settings_in_force
    from millpond.tasks.process.running_up import find_local_instance
    from millpond.tasks.settings import Settings, settings, shipped_names

    configured, written = settings(), sources.read_sources(Settings, shipped_names())
    local = find_local_instance() if configured.broker_url is None else None
    if local is not None:
        configured = local.apply_to(configured)
    in_force = []
    for each in settings_in_force(configured, written):
        if local is not None and each.name in ("broker_url", "key_prefix"):
            each = replace(each, origin="the millpond up that runs here")
        if each.name == "broker_url" and configured.broker_url:
            each = replace(each, value=str(BrokerURL.parse(configured.broker_url)))
        if each.name == "traces_endpoint" and each.value:
            each = replace(each, value=re.sub(r"://[^/]*@", "://**@", each.value))
        in_force.append(each)
    return in_force, written.unused


def _select_settings(in_force: "list[SettingInForce]", names: "Iterable[str]") -> "list[SettingInForce]":
    """Return the settings of these names and tables, all without names. Raises `BadInput`."""
    from millpond.tasks.errors import BadInput
    from millpond.tasks.name_suggestions import closest_name

    shown: list[SettingInForce] = []
    for name in names:
        fitting = [each for each in in_force if f"{each.name}.".startswith(f"{name}.")]
        if not fitting:
            parts = {each.name for each in in_force}
            tables = {part.rpartition(".")[0] for part in parts} | {part.partition(".")[0] for part in parts}
            meant = closest_name(name, parts | tables - {""})
            hint = f"did you mean {meant!r}?" if meant else "leave the name out to see them all"
            raise BadInput(f"no setting or table is named {name!r}: {hint}")
        shown += [each for each in fitting if each not in shown]
    return shown or in_force


def _toml_lines(in_force: "list[SettingInForce]") -> "Iterator[str]":
    """Yield the lines of a millpond.toml: the settings at the top first, then table after table."""
    import shutil
    import textwrap

    from millpond.tasks.configuration.catalog import HIDDEN, to_toml
    from millpond.tasks.configuration.model_fields import describe_values

    width, table = shutil.get_terminal_size().columns, ""
    for each in sorted(in_force, key=lambda each: "." in each.name):
        inside, _, name = each.name.rpartition(".")
        if inside != table:
            table = inside
            yield f"\n[{inside}]"
        is_written = each.value is not None and each.value != HIDDEN
        entry = f"{name} = {to_toml(each.value)}" if is_written else f"# {name} {each.value or '(not set)'}"
        comment = f"{each.origin}; {describe_values(each.setting.field)}"
        if len(entry) + len(comment) + 4 <= width and is_written:
            yield f"{entry}  # {comment}"
        else:
            yield from textwrap.wrap(comment, max(20, width), initial_indent="# ", subsequent_indent="# ")
            yield entry

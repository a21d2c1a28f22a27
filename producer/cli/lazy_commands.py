"""Load a command's module when the command is used, so that `millpond --help` imports none of them."""

import importlib
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer._completion_classes import completion_init
from typer.core import TyperGroup
from typer.main import get_command

from millpond.producer.cli.param_words import describe_parameters

#: Name of a command -> the place of its typer application ("module:attribute"), and its help in one line.
Table = Mapping[str, tuple[str, str]]


#: Letters of a first sentence: more than any has.
_WHOLE = 1_000


class Group(TyperGroup):
    """A command that has others under it, and no option that changes them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Pass a command's name and arguments on. Typer would import pydantic to find --help absent."""
        if not args or args[0].startswith("-"):
            return super().parse_args(ctx, args)
        ctx._protected_args, ctx.args = args[:1], args[1:]
        return args[1:]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands with their whole first sentence. Typer would cut it."""
        named = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(_WHOLE)) for name, each in named if each])


def make_group(table: Table, *, help: str, epilog: str) -> Any:
    """Return the command that has the commands of the table under it."""

    class Lazy(Group):
        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
            return list(table)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
            return _load_command(cmd_name, table[cmd_name][0]) if cmd_name in table else None

        def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
            with formatter.section("Commands"):
                formatter.write_dl([(name, line) for name, (_target, line) in table.items()])

    app = typer.Typer(no_args_is_help=True, epilog=epilog)
    app.callback(help=help)(_root_options)
    completion_init()  # of a shell that requests it by the variable _MILLPOND_COMPLETE
    return _typer_command(app, Lazy)


def _load_command(name: str, target: str) -> Any:
    """Import the module of a command and return the command."""
    module, _, attribute = target.partition(":")
    command = _typer_command(getattr(importlib.import_module(module), attribute), Group)
    command.name = name
    describe_parameters(command)
    return command


def _typer_command(app: typer.Typer, cls: type[TyperGroup]) -> Any:
    """Make a command of an application, with plain help: rich would double the time that it takes."""
    app._add_completion = False
    app.rich_markup_mode = None
    app.info.cls = cls
    app.info.context_settings = {"help_option_names": ["-h", "--help"]}
    return get_command(app)


def _print_version(is_wanted: bool) -> None:
    """Print the version and exit, if `--version` was given."""
    if is_wanted:
        from importlib.metadata import version

        print(f"millpond {version('millpond')}")
        raise typer.Exit


def _root_options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Take the options of `millpond` itself."""
    pass

"""A command line whose commands are imported when they are used: `millpond --help` imports none of them."""

import importlib
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer._completion_classes import completion_init
from typer.core import TyperGroup
from typer.main import get_command

from millpond.producer.cli.param_words import describe_parameters

#: Name of a command -> its typer application ("module:attribute"), and its help in one line.
CommandTable = Mapping[str, tuple[str, str]]


#: The most characters of a command's help in a list: more than any first sentence has.
_HELP_LENGTH = 1_000


class CommandGroup(TyperGroup):
    """A command with subcommands, which do not depend on its own options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Separate the subcommand's name from its arguments. Return the arguments.

        Typer's own method would import pydantic, only to find that `--help` is absent.
        """
        if not args or args[0].startswith("-"):
            return super().parse_args(ctx, args)
        ctx._protected_args, ctx.args = args[:1], args[1:]
        return args[1:]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the subcommands with the whole first sentence of their help. Typer would cut it."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(_HELP_LENGTH)) for name, command in commands if command]
            )


def make_group(table: CommandTable, *, help: str, epilog: str) -> Any:
    """Return a command whose subcommands are those of the table. Prepares the completion of shells."""

    class LazyGroup(CommandGroup):
        """The commands of the table, each of which is imported when it is used."""

        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
            return list(table)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
            return _load_command(cmd_name, table[cmd_name][0]) if cmd_name in table else None

        def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
            with formatter.section("Commands"):
                formatter.write_dl([(name, line) for name, (_target, line) in table.items()])

    app = typer.Typer(no_args_is_help=True, epilog=epilog)
    app.callback(help=help)(_root_options)
    completion_init()  # a shell asks for completions by the variable _MILLPOND_COMPLETE
    return _typer_command(app, LazyGroup)


def _load_command(name: str, target: str) -> Any:
    """Import the typer application of a command ("module:attribute"), and return the command."""
    module, _, attribute = target.partition(":")
    command = _typer_command(getattr(importlib.import_module(module), attribute), CommandGroup)
    command.name = name
    describe_parameters(command)
    return command


def _typer_command(app: typer.Typer, cls: type[TyperGroup]) -> Any:
    """Return the command of a typer application, with help in plain text: rich takes twice the time."""
    app._add_completion = False
    app.rich_markup_mode = None
    app.info.cls = cls
    app.info.context_settings = {"help_option_names": ["-h", "--help"]}
    return get_command(app)


def _print_version(is_wanted: bool) -> None:
    """Print the version and exit if `--version` was given. The callback of this option."""
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
    """Declare the options of `millpond` itself. They are handled by their callbacks."""

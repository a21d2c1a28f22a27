"""`millpond email send`, and `millpond email campaign FILE.csv`."""

from typing import Annotated

import typer

from millpond.producer.cli.options import Json, Queue

app = typer.Typer(
    help="Send a mail, or one to each row of a CSV, and wait until the mail server has accepted them.",
    no_args_is_help=True,
    epilog="Example: millpond email campaign people.csv --from shop@example.org --subject 'Hello {{ name }}' "
    "--text-file hello.txt",
)

Sender = Annotated[
    str, typer.Option("--from", metavar="ADDRESS", help="The sender: ann@example.org, or 'Ann <ann@…>'.")
]
Subject = Annotated[str, typer.Option(metavar="TEXT", help="The subject, one line.")]
Text = Annotated[str | None, typer.Option(metavar="TEXT", help="The body as plain text.")]
TextFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="Read the plain text from a file (UTF-8), - for stdin.")
]
HtmlFile = Annotated[str | None, typer.Option(metavar="FILE", help="Read the HTML body from a file (UTF-8).")]
Template = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Use NAME.txt and NAME.html of the template folder instead."),
]
ReplyTo = Annotated[
    list[str] | None, typer.Option(metavar="ADDRESS", help="The address for replies; may be repeated.")
]
Attach = Annotated[
    list[str] | None, typer.Option(metavar="FILE", help="Attach a file or a storage URL; may be repeated.")
]
Header = Annotated[
    list[str] | None, typer.Option(metavar="'NAME: VALUE'", help="Add a header; may be repeated.")
]


@app.command(
    epilog="Example: millpond email send --from me@example.org --to ann@example.org --subject Hello "
    "--text 'Hi Ann'"
)
def send(
    ctx: typer.Context,
    sender: Sender,
    to: Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="May be repeated.")] = None,
    cc: Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="May be repeated.")] = None,
    bcc: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="A recipient that no other sees; may be repeated."),
    ] = None,
    subject: Subject = "",
    text: Text = None,
    text_file: TextFile = None,
    html_file: HtmlFile = None,
    template: Template = None,
    context: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help="The variables of subject, text and html, which then are templates."
        ),
    ] = None,
    reply_to: ReplyTo = None,
    attach: Attach = None,
    header: Header = None,
    queue: Queue = None,
    as_json: Json = False,
) -> None:
    """Send one mail."""
    from millpond.producer.cli.mail_sender import parse_context, read_mail_fields, send_mail

    fields = read_mail_fields(locals())
    fields |= {"to": to or (), "cc": cc or (), "bcc": bcc or (), "context": parse_context(context)}
    raise typer.Exit(send_mail(ctx.obj, fields, queue=queue, as_json=as_json))


@app.command(
    epilog="Example: millpond email campaign people.csv --from shop@example.org --subject 'Hello {{ name }}' "
    "--text-file hello.txt --name spring"
)
def campaign(
    ctx: typer.Context,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE.csv", help="One mail a row; its columns are the variables of the templates."
        ),
    ],
    sender: Sender,
    subject: Subject = "",
    text: Text = None,
    text_file: TextFile = None,
    html_file: HtmlFile = None,
    template: Template = None,
    column: Annotated[str, typer.Option(metavar="NAME", help="The column with the address.")] = "email",
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The campaign's name: a row is sent once under a name, for some days."
        ),
    ] = None,
    reply_to: ReplyTo = None,
    attach: Attach = None,
    header: Header = None,
    queue: Queue = None,
    as_json: Json = False,
) -> None:
    """Send one mail to each row of a CSV, of any size."""
    from millpond.producer.cli.mail_sender import read_mail_fields, send_campaign

    fields = read_mail_fields(locals())
    raise typer.Exit(
        send_campaign(ctx.obj, file, fields | {"column": column}, name=name, queue=queue, as_json=as_json)
    )

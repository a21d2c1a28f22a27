"""Run a file operation over the inputs of a command line: inputs to contracts to tasks to a report."""

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from millpond.producer.cli.batch_runner import LabelledMessage, Skipped, run_batch
from millpond.producer.cli.client_session import Launcher, open_session
from millpond.producer.cli.inputs import STDIN, Inputs, UnreadableInput
from millpond.producer.cli.output import Output
from millpond.producer.cli.output_paths import (
    Naming,
    Targets,
    folder_of_archive,
    same_name,
    with_added_extension,
    with_extension,
)
from millpond.producer.cli.progress import TotalEstimate
from millpond.producer.message import Message, contract_from
from millpond.tasks.contract import Contract, contract_of, read_fields
from millpond.tasks.errors import BadContract, BadInput
from millpond.tasks.files.contract import file_url
from millpond.tasks.files.endings import IMAGE_TARGETS


@dataclass(frozen=True)
class Operation:
    """The request of a command.

    A kind, the fields that its options set, and the place of results (None: no place).
    """

    kind: str
    title: str
    fields: dict[str, Any] = field(default_factory=dict)
    patterns: tuple[str, ...] = ()
    out: str | None = None
    queue: str | None = None
    roots: tuple[str, ...] = ()
    as_json: bool = False


def run_operation(launcher: Launcher | None, operation: Operation, arguments: Sequence[str]) -> int:
    """Run the operation and return the exit code.

    Raises `BadInput`, `BadContract` before anything is sent.
    """
    out = None if operation.out is None or "://" in operation.out else Path(operation.out)
    inputs = Inputs(arguments, operation.patterns, keep_out=out)
    inputs.check_arguments()
    _check_fields(operation)
    is_counted = STDIN not in arguments
    if is_counted and next(iter(inputs), None) is None:
        wanted = ", ".join(operation.patterns) or "file"
        raise BadInput(f"{' '.join(arguments)}: holds no {wanted}; name files, or --match GLOB")
    if out is not None and os.path.lexists(out) and not out.is_dir():
        raise BadInput(f"--out {out} is a file: name a folder")
    roots = inputs.root_folders(*([out] if out else []), *map(Path, operation.roots))
    if operation.out is not None and out is None:
        roots.append(operation.out)
    with open_session(launcher, queue=_queue_of(operation), roots=roots) as opened:
        if opened.is_embedded and out is not None:
            out.mkdir(parents=True, exist_ok=True)
        return run_batch(
            opened,
            _make_messages(operation, inputs),
            title=operation.title,
            output=Output(as_json=operation.as_json, line=_line_format(operation)),
            estimate_total=_input_counter(inputs) if is_counted else None,
        )


def _make_messages(operation: Operation, inputs: Inputs) -> Iterator[LabelledMessage | Skipped]:
    """Yield the message for each input, or the reason why there is none."""
    targets = None if operation.out is None else Targets(operation.out, output_naming(operation))
    for input_ in inputs:
        if isinstance(input_, UnreadableInput):
            yield Skipped(input_.place, input_.reason)
            continue
        try:
            fields = {"source": input_.place if input_.is_url else file_url(input_.place)}
            if targets is not None:
                fields["target"] = targets.target_url(input_.below)
            contract = read_fields(contract_of(operation.kind), {**fields, **operation.fields})
        except BadContract as error:
            yield Skipped(input_.place, str(error))
        except ValueError as error:
            yield Skipped(input_.place, str(error))
        else:
            yield LabelledMessage(input_.place, Message(contract, queue=operation.queue))


def _input_counter(inputs: Inputs) -> TotalEstimate:
    """Return a count of the inputs by a second walk beside their use: it is cheap, and keeps nothing."""
    counted: list[int] = []
    threading.Thread(
        target=lambda: counted.append(inputs.count_items()), name="counting", daemon=True
    ).start()
    return lambda _count: counted[0] if counted else None


def output_naming(operation: Operation) -> Naming:
    """Return how the operation names its outputs."""
    match operation.kind:
        case "files.parquet":
            return with_extension(".parquet")
        case "files.pdf_text":
            return with_extension(".txt")
        case "files.compress":
            return with_added_extension(".zst")
        case "files.unpack":
            return folder_of_archive
        case _:
            return _image_naming(operation.fields.get("format"))


def _image_naming(format: str | None) -> Naming:
    """Keep an extension that fits the format. Otherwise take the format's own, or .jpg."""

    def name(original: str) -> str:
        image_format = IMAGE_TARGETS.get(PurePosixPath(original).suffix.lower())
        if image_format is not None and format in (None, image_format):
            return same_name(original)
        return with_extension("." + (format or "jpg").replace("jpeg", "jpg"))(original)

    return name


def _check_fields(operation: Operation) -> None:
    """Refuse options that no contract of this kind takes, before a worker is started for them."""
    places = {"source": "/a.png"} if operation.out is None else {"source": "/a.png", "target": "/b.png"}
    contract_from((operation.kind, {**places, **operation.fields}))


def _queue_of(operation: Operation) -> str:
    contract: type[Contract] = contract_of(operation.kind)
    return operation.queue or contract.queue


def _line_format(operation: Operation) -> Any:
    if operation.kind != "files.checksum":
        return None
    return lambda label, value: f"{value['digest']}  {label}"

"""Run a file operation over the inputs of a command: find them, send a task for each, print the results."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from millpond.producer.cli.batch_runner import LabelledMessage, Skipped, run_batch
from millpond.producer.cli.client_session import StartWorkers, open_session
from millpond.producer.cli.inputs import STDIN, Inputs, UnreadableInput
from millpond.producer.cli.output import Output
from millpond.producer.cli.output_paths import OutputPaths, output_name
from millpond.producer.cli.progress import TotalEstimate
from millpond.producer.message import Message, contract_from
from millpond.tasks.contract import contract_of, job_from_fields
from millpond.tasks.errors import BadContract, BadInput
from millpond.tasks.files.contract import file_url


@dataclass(frozen=True)
class Operation:
    """A file operation as a command line states it.

    `fields` are the fields of the contract that options set. `out` is the folder or storage URL of the
    outputs, None if the operation writes none.
    """

    kind: str
    title: str
    fields: dict[str, Any] = field(default_factory=dict)
    patterns: tuple[str, ...] = ()
    out: str | None = None
    queue: str | None = None
    roots: tuple[str, ...] = ()
    as_json: bool = False


def run_operation(start_workers: StartWorkers, operation: Operation, arguments: Sequence[str]) -> int:
    """Run an operation over the files of the arguments, and return the exit code.

    Raises `BadInput` and `BadContract`, before anything is sent.
    """
    out = None if operation.out is None or "://" in operation.out else Path(operation.out)
    inputs = Inputs(arguments, operation.patterns, skipped_folder=out)
    inputs.check_arguments()
    example = {"source": "/a.png"} if operation.out is None else {"source": "/a.png", "target": "/b.png"}
    contract_from((operation.kind, {**example, **operation.fields}))  # options that it refuses
    can_count = STDIN not in arguments
    if can_count and next(iter(inputs), None) is None:
        wanted = ", ".join(operation.patterns) or "file"
        raise BadInput(f"{' '.join(arguments)}: holds no {wanted}; name files, or --match GLOB")
    if out is not None and os.path.lexists(out) and not out.is_dir():
        raise BadInput(f"--out {out} is a file: name a folder")
    outputs = () if operation.out is None else (operation.out,)
    roots = inputs.root_folders(*outputs, *operation.roots)
    queue = operation.queue or contract_of(operation.kind).queue
    with open_session(start_workers, queue=queue, roots=roots) as session:
        if session.is_embedded and out is not None:
            out.mkdir(parents=True, exist_ok=True)
        return run_batch(
            session,
            _make_messages(operation, inputs),
            title=operation.title,
            output=Output(as_json=operation.as_json, format_line=_line_format(operation)),
            estimate_total=_count_in_background(inputs) if can_count else None,
        )


def _make_messages(operation: Operation, inputs: Inputs) -> Iterator[LabelledMessage | Skipped]:
    """Yield the message for each input, or the reason why no task is made from it."""
    name_output = partial(output_name, operation.kind, format=operation.fields.get("format"))
    paths = None if operation.out is None else OutputPaths(operation.out, name_output)
    for file in inputs:
        if isinstance(file, UnreadableInput):
            yield Skipped(file.path, file.reason)
            continue
        try:
            fields = {"source": file.path if file.is_url else file_url(file.path)}
            if paths is not None:
                if operation.kind != "files.unpack":  # its task refuses to replace anything
                    paths.refuse_to_replace(file, inputs)
                fields["target"] = paths.output_url(file.relative_path)
            contract = job_from_fields(contract_of(operation.kind), {**fields, **operation.fields})
        except (BadContract, ValueError) as error:
            yield Skipped(file.path, str(error))
        else:
            yield LabelledMessage(file.path, Message(contract, queue=operation.queue))


def _count_in_background(inputs: Inputs) -> TotalEstimate:
    """Count the inputs in a thread, by a walk of its own. Return a function that returns the number.

    The function returns None until the walk has ended.
    """
    result: list[int] = []
    threading.Thread(target=lambda: result.append(inputs.count_items()), name="counting", daemon=True).start()
    return lambda _counters: result[0] if result else None


def _line_format(operation: Operation) -> Callable[[str, Any], str] | None:
    """Return the function that writes a result as a line for people. Only checksums are written so."""
    if operation.kind != "files.checksum":
        return None
    return lambda label, value: f"{value['digest']}  {label}"

"""The arguments of `Batch.send` and `Client.send`: a message, and how it is sent.

The methods have the parameters of these dataclasses, so each option of a send is declared once, in
`tasks/send_options.py`, and type checkers know it by name.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import wraps
from inspect import signature
from typing import Concatenate, ParamSpec, TypeVar

from millpond.producer.message import Message
from millpond.tasks.durations import Duration
from millpond.tasks.pools import Overflow

_P = ParamSpec("_P")
_Owner = TypeVar("_Owner")
_Arguments = TypeVar("_Arguments")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class BatchSend(Message):
    """A message and how it is sent.

    `overflow` replaces the overflow policy of the queue. Under `block`, `timeout` bounds the wait (None: no
    bound).
    """

    _: KW_ONLY
    overflow: Overflow | None = None
    timeout: Duration | None = None


def takes_fields_of(
    arguments: Callable[_P, _Arguments],
) -> Callable[[Callable[[_Owner, _Arguments], _Answer]], Callable[Concatenate[_Owner, _P], _Answer]]:
    """Return a decorator that gives a method the parameters of a dataclass.

    The method itself has one parameter besides its owner: an object of that dataclass.
    """

    def decorate(
        method: Callable[[_Owner, _Arguments], _Answer],
    ) -> Callable[Concatenate[_Owner, _P], _Answer]:
        """Return the method with the parameters of the dataclass in its signature."""

        @wraps(method)
        def call(owner: _Owner, /, *args: _P.args, **options: _P.kwargs) -> _Answer:
            try:
                message = arguments(*args, **options)
            except TypeError as error:
                text, own_name = str(error), f"{arguments.__name__}.__init__()"
                if not text.startswith(own_name):  # the error of a value
                    raise
                raise TypeError(f"{method.__qualname__}(){text.removeprefix(own_name)}") from None
            return method(owner, message)

        owner_parameter, _arguments_parameter = signature(method).parameters.values()
        call.__signature__ = signature(arguments).replace(  # type: ignore[attr-defined]
            parameters=[owner_parameter, *signature(arguments).parameters.values()],
            return_annotation=signature(method).return_annotation,
        )
        return call

    return decorate

"""A name that there is not is answered with the one that was meant."""

from collections.abc import Callable

import pytest

from millpond.broker.connection import Store
from millpond.producer.client import Client
from millpond.tasks.errors import UnknownKind, UnknownQueue
from millpond.tasks.settings import Settings


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("statsu", "no command is named 'statsu'. Did you mean 'status'? See: millpond --help"),
        ("stat", "no command is named 'stat'. Did you mean 'status'? See: millpond --help"),
        ("queue shwo email", "no command is named 'shwo'. Did you mean 'show'? See: millpond queue --help"),
        ("files thumnail x", "no command is named 'thumnail'. Did you mean 'thumbnail'? See: millpond files"),
        ("tpo", "no command is named 'tpo'. Did you mean 'top'? See: millpond --help"),
        ("uo", "no command is named 'uo'. Did you mean 'up'? See: millpond --help"),
        ("zebra", "no command is named 'zebra'. See: millpond --help"),
        ("status --jsn", "no option is named '--jsn'. Did you mean '--json'? See: millpond status --help"),
        ("queue set email --buond 3", "no option is named '--buond'. Did you mean '--bound'?"),
        ("--verison", "no option is named '--verison'. Did you mean '--version'?"),
        ("health --jsn", "unrecognized arguments: --jsn. See: millpond health --help"),
        ("queue set email --unset buond", "'buond' is not a limit that can be unset; there are: "),
        ("queue show emial", "default, email, files. Did you mean 'email'?"),
        ("queue pause emial", "default, email, files. Did you mean 'email'?"),
        ("dead requeue emial --all", "default, email, files. Did you mean 'email'?"),
        ("dead purge emial --all", "default, email, files. Did you mean 'email'?"),
        ("dead list emial", "default, email, files. Did you mean 'email'?"),
        ("drain emial", "no pool is named 'emial'; there are: default, email, files. Did you mean 'email'?"),
        ("resume emial", "no pool is named 'emial'; there are: default, email, files. Did you mean 'email'?"),
        ("why emial", "no pool is named 'emial'; there are: default, email, files. Did you mean 'email'?"),
        ("worker emial", "no pool is named 'emial'; there are: default, email, files. Did you mean 'email'?"),
    ],
)  # fmt: skip
def test_a_command_line(
    arguments: str,
    said: str,
    store: Store,
    url: str,
    configure: Callable[[str, str], None],
    failed: Callable[[list[str], int], str],
) -> None:
    """A mistyped command, option, limit, queue or pool is answered by the similar one in a line, with 2."""
    configure(url, store.prefix)
    assert said in failed(arguments.split(), 2)


def test_an_application(store: Store, url: str) -> None:
    """A mistyped kind or queue in Python is answered by the similar one."""
    with Client(url, settings=Settings(key_prefix=store.prefix)) as client:
        with pytest.raises(
            UnknownKind, match=r"no kind is named 'email.sned'; .*Did you mean 'email.send'\?"
        ):
            client.send(("email.sned", {}))
        with pytest.raises(
            UnknownQueue, match=r"'emial'; .*\. Did you mean 'email'\? Add a \[queues.emial\]"
        ):
            client.send(("squares.square", {"n": 1}), queue="emial")

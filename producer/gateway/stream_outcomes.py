"""Give messages to the client and every outcome back as a value, in order, the errors too."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from millpond.producer.client import Client
from millpond.producer.message import Message
from millpond.producer.send_outcomes import Refused, Sent
from millpond.tasks.errors import BrokerError, MillpondError
from millpond.tasks.pools import Overflow

#: What became of a message; an error that is no `Refused` says that it was not sent, or not known to be.
Carried = Sent | Refused | Exception


def carry(
    client: Client,
    messages: Sequence[Message],
    *,
    overflow: Overflow | None,
    timeout: timedelta,
    batch: str | None,
) -> Iterator[Carried]:
    """Yield what became of each message.

    A message that cannot be sent at all does not keep back those beside it: nothing of its chunk was sent
    when the client says so, and the rest then goes one by one.
    """
    done = 0
    try:
        for outcome in client.send_each(messages, overflow=overflow, timeout=timeout, batch=batch):
            done += 1
            yield outcome
    except BrokerError as error:
        for _ in messages[done:]:
            yield error
    except (MillpondError, ValueError) as error:
        if len(messages) - done == 1:
            yield error
            return
        for message in messages[done:]:
            yield from carry(client, [message], overflow=overflow, timeout=timeout, batch=batch)

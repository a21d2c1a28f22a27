"""Built-in middleware that cuts the secrets of the running task out of log lines, also those of libraries."""

from millpond.broker.message import BadMessage
from millpond.tasks.context import Context
from millpond.tasks.contract import kinds
from millpond.tasks.middleware import Middleware
from millpond.tasks.redaction import hides_fields, scrub, secrets_in


class LogRedaction(Middleware):
    """Cuts out the values of the fields that a contract hides."""

    def redact(self, line: str, context: Context) -> str:
        """Return the line without the secrets of the task."""
        contract = kinds().get(context.kind)
        if context.message is None or contract is None or not hides_fields(contract):
            return line
        try:
            args, kwargs, _embed = context.message.arguments
        except BadMessage:
            return line
        return scrub(line, secrets_in(contract, args, kwargs))

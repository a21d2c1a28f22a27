"""Built-in middleware that cuts the secrets of the running task out of the log lines of all loggers."""

from millpond.tasks.context import Context
from millpond.tasks.contract import contracts_by_kind
from millpond.tasks.middleware import Middleware
from millpond.tasks.redaction import hides_fields, scrub_secrets


class LogRedaction(Middleware):
    """Cuts the values of hidden fields out of log lines."""

    def redact(self, line: str, context: Context) -> str:
        """Return the line without the secrets in the arguments of the task."""
        contract = contracts_by_kind().get(context.kind)
        if context.message is None or contract is None or not hides_fields(contract):
            return line
        return scrub_secrets(line, contract, context.message)

"""For type checkers: the names that `millpond/__init__.py` imports when they are used."""

from collections.abc import Sequence

from millpond.broker.batches.record import Result as Result
from millpond.broker.batches.record import Summary as Summary
from millpond.broker.task_state import TaskState as TaskState
from millpond.producer.batch import Batch as Batch
from millpond.producer.client import Client as Client
from millpond.producer.message import Call as Call
from millpond.producer.message import Message as Message
from millpond.producer.send_outcomes import RanHere as RanHere
from millpond.producer.send_outcomes import Refused as Refused
from millpond.producer.send_outcomes import Sent as Sent
from millpond.producer.send_outcomes import Tally as Tally
from millpond.tasks.context import Context as Context
from millpond.tasks.contract import Contract as Contract
from millpond.tasks.email.contract import SendCampaign as SendCampaign
from millpond.tasks.email.contract import SendEmail as SendEmail
from millpond.tasks.errors import BadContract as BadContract
from millpond.tasks.errors import BadInput as BadInput
from millpond.tasks.errors import BatchClosed as BatchClosed
from millpond.tasks.errors import BrokerAway as BrokerAway
from millpond.tasks.errors import Cancelled as Cancelled
from millpond.tasks.errors import DeadlineExceeded as DeadlineExceeded
from millpond.tasks.errors import FinalError as FinalError
from millpond.tasks.errors import HandlerMissing as HandlerMissing
from millpond.tasks.errors import MillpondError as MillpondError
from millpond.tasks.errors import QueueFull as QueueFull
from millpond.tasks.errors import RetryLater as RetryLater
from millpond.tasks.errors import UnknownBatch as UnknownBatch
from millpond.tasks.errors import UnknownKind as UnknownKind
from millpond.tasks.errors import UnknownQueue as UnknownQueue
from millpond.tasks.files.contract import Checksum as Checksum
from millpond.tasks.files.contract import Compress as Compress
from millpond.tasks.files.contract import ConvertImage as ConvertImage
from millpond.tasks.files.contract import PdfText as PdfText
from millpond.tasks.files.contract import Thumbnail as Thumbnail
from millpond.tasks.files.contract import ToParquet as ToParquet
from millpond.tasks.files.contract import Unpack as Unpack
from millpond.tasks.files.contract import file_url as file_url
from millpond.tasks.handlers import body as body
from millpond.tasks.handlers import handler as handler
from millpond.tasks.middleware import Middleware as Middleware
from millpond.tasks.middleware import Sending as Sending
from millpond.tasks.settings import Settings as Settings
from millpond.tasks.settings import settings as settings
from millpond.tasks.squares.contract import Square as Square
from millpond.worker.local.embedded import embedded as embedded

def main(arguments: Sequence[str] | None = ...) -> int: ...

"""Name for type checkers what `millpond.py` looks up when it is used."""

from collections.abc import Sequence

from broker.batches import Result as Result
from broker.batches import Summary as Summary
from producer.batch import Batch as Batch
from producer.client import Client as Client
from producer.message import Message as Message
from producer.outcomes import RanHere as RanHere
from producer.outcomes import Refused as Refused
from producer.outcomes import Sent as Sent
from producer.outcomes import Tally as Tally
from tasks.bodies import body as body
from tasks.context import Context as Context
from tasks.contracts import Contract as Contract
from tasks.email.contract import SendCampaign as SendCampaign
from tasks.email.contract import SendEmail as SendEmail
from tasks.errors import (
    BadContract as BadContract,
)
from tasks.errors import (
    BadInput as BadInput,
)
from tasks.errors import (
    BatchClosed as BatchClosed,
)
from tasks.errors import (
    BodyMissing as BodyMissing,
)
from tasks.errors import (
    BrokerAway as BrokerAway,
)
from tasks.errors import (
    Cancelled as Cancelled,
)
from tasks.errors import (
    DeadlineExceeded as DeadlineExceeded,
)
from tasks.errors import (
    FinalError as FinalError,
)
from tasks.errors import (
    MillpondError as MillpondError,
)
from tasks.errors import (
    QueueFull as QueueFull,
)
from tasks.errors import (
    RetryLater as RetryLater,
)
from tasks.errors import (
    UnknownBatch as UnknownBatch,
)
from tasks.errors import (
    UnknownKind as UnknownKind,
)
from tasks.errors import (
    UnknownQueue as UnknownQueue,
)
from tasks.files.contract import (
    Checksum as Checksum,
)
from tasks.files.contract import (
    Compress as Compress,
)
from tasks.files.contract import (
    ConvertImage as ConvertImage,
)
from tasks.files.contract import (
    PdfText as PdfText,
)
from tasks.files.contract import (
    Thumbnail as Thumbnail,
)
from tasks.files.contract import (
    ToParquet as ToParquet,
)
from tasks.files.contract import (
    Unpack as Unpack,
)
from tasks.files.contract import (
    file_url as file_url,
)
from tasks.settings import Settings as Settings
from tasks.settings import settings as settings
from tasks.squares.contract import Square as Square
from worker.embedded import embedded as embedded

def main(arguments: Sequence[str] | None = ...) -> int: ...

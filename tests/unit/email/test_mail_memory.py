"""All slots of the mail pool, each with the largest mail, fit the memory of the container."""

import os
import re
import sys
from pathlib import Path

import pytest

from millpond.tasks.email import template_engine
from millpond.tasks.pools import PoolsTable
from tests.harness.run_to_end import run_to_end

#: The limit of the container (docker-compose.yml; tests/unit/deploy holds it there).
CONTAINER_MIB = 512
DOCKERFILE = Path(__file__).parents[3] / "deploy/Dockerfile"

_SEND = """
import io, os, smtplib, sys
from concurrent.futures import ThreadPoolExecutor
from millpond.tasks.email.contract import SendEmail
from millpond.tasks.email.mailer import Mailer
from millpond.tasks.email.ledger import Claim
from millpond.tasks.email.smtp_session import SmtpResult
from millpond.tasks.settings import Smtp
from tests.harness.peak_memory import peak_mb

class Ledger:
    def claim(self, *_args, **_more):
        return Claim("taken")
    def record(self, *_args, **_more):
        return True

class Connections:
    def send(self, envelope, pending, *, before_data):
        smtplib._quote_periods(envelope.payload) + b"."  # what smtplib makes of a message
        return SmtpResult(tuple(pending), {}, {})

settings = Smtp(host="localhost")
content = os.urandom(settings.max_attachment_bytes)
mailer = Mailer(settings, Connections(), Ledger(), lambda url: io.BytesIO(content))
job = SendEmail(sender="a@example.org", to="b@example.org", subject="s", text="t", attachments=["file:///a.bin"])
slots = int(sys.argv[1])
with ThreadPoolExecutor(slots) as threads:
    for done in [threads.submit(mailer.send, job, f"task-{n}") for n in range(4)]:
        done.result()
print(peak_mb())
"""


@pytest.mark.slow
def test_the_largest_mails_in_all_slots_fit_the_container() -> None:
    """The container has memory for mails of 20 MiB in every slot, and for the process of templates."""
    slots = PoolsTable().pools["email"].slots
    command = [sys.executable, "-c", _SEND, str(slots)]
    env = {**os.environ, **dict(re.findall(r"(MALLOC_\w+)=(\d+)", DOCKERFILE.read_text()))}
    peak = float(run_to_end(command, check=True, env=env).stdout)
    assert peak < CONTAINER_MIB - template_engine.MEMORY_BYTES // 1024**2

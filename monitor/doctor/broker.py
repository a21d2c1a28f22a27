"""Checks of the broker: its version, writes, durability and clock."""

import time
from collections.abc import Iterator

from millpond.broker import server
from millpond.broker.connection import Store
from millpond.monitor.doctor.finding import Finding, fail, ok, warn

#: The oldest versions that the tests run on.
OLDEST_VERSIONS = {"Redis": (6, 2), "Valkey": (7, 2)}

#: The accepted difference of the clocks.
CLOCK_TOLERANCE_SECONDS = 1.0


def examine_broker(store: Store) -> Iterator[Finding]:
    """Yield the findings on the broker's version, writes, durability and clock. Raises `BrokerAway`."""
    yield _check_version(store)
    if refusal := server.find_write_refusal(store):
        yield fail(
            "writes", f"the broker refuses writes: {refusal}", "free its memory or disk, or name its master"
        )
    else:
        yield ok("writes", "the broker takes writes")
    yield from _check_durability(store)
    yield _check_clock(store)


def _check_version(store: Store) -> Finding:
    """Return the finding on the version of the broker: is it one of `OLDEST_VERSIONS` or later?"""
    name_and_version = server.read_server_version(store)
    if name_and_version is None:
        return warn("version", "the broker's version is unknown", "allow INFO to its user")
    name, version = name_and_version
    oldest = OLDEST_VERSIONS.get(name, OLDEST_VERSIONS["Redis"])
    major_and_minor = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if major_and_minor < oldest:
        needed = ".".join(map(str, oldest))
        return fail("version", f"{name} {version} is too old", f"use {name} {needed} or later, or Valkey")
    return ok("version", f"{name} {version}")


def _check_durability(store: Store) -> Iterator[Finding]:
    """Yield a finding for each way in which the broker may lose messages, or that there is none."""
    risks = server.find_durability_risks(store)
    if risks is None:
        yield warn("persistence", "it is unknown whether the broker keeps messages", "allow INFO to its user")
        return
    for risk in risks:
        fault, _, remedy = risk.partition(": ")
        yield warn("persistence", fault, f"{remedy} in the server's configuration")
    if not risks:
        yield ok("persistence", "the broker evicts nothing, and writes every message to disk")


def _check_clock(store: Store) -> Finding:
    """Return the finding on the difference between the broker's clock and this host's.

    The broker's time is compared with the middle of the round trip in which it is read.
    """
    sent_at = time.time()
    broker_time = server.server_time_ms(store) / 1000
    replied_at = time.time()
    ahead = broker_time - (sent_at + replied_at) / 2
    if abs(ahead) - (replied_at - sent_at) < CLOCK_TOLERANCE_SECONDS:
        return ok("clock", f"the broker's clock and this host's differ by {abs(ahead) * 1000:.0f} ms")
    direction = "ahead of" if ahead > 0 else "behind"
    return warn(
        "clock",
        f"the broker's clock is {abs(ahead):.1f} s {direction} this host's",
        "synchronise both by NTP: times in logs and `at=` differ between them",
    )

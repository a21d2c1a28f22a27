"""Loopback addresses: reachable from this machine only."""

import ipaddress
from contextlib import suppress


def is_loopback(address: str) -> bool:
    """True if only this machine can reach the address."""
    with suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return address == "localhost"

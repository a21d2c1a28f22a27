"""Recognize loopback addresses, which only this machine can reach."""

import ipaddress
from contextlib import suppress


def is_loopback(address: str) -> bool:
    """True if an IP address or host name is a loopback address. Of names, only `localhost` is one."""
    with suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return address == "localhost"

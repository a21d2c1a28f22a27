"""Tell an address that only this machine can reach from one that others can."""

import ipaddress
from contextlib import suppress


def is_loopback(address: str) -> bool:
    """Say whether only this machine can reach the address."""
    with suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return address == "localhost"

"""How a machine that sleeps is woken: Wake-on-LAN."""

import re
from ipaddress import IPv4Address
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from llama_orch.contracts.base import Outbound

MACS_MAX = 8


def mac_address(value: str) -> str:
    """Return the hardware address of one network interface, in lower case with colons. Raises ValueError."""
    found = value.lower().replace("-", ":")
    if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", found):
        raise ValueError("must be six bytes in hexadecimal, as in 52:54:00:12:34:56")
    if found == "00:00:00:00:00:00" or int(found[:2], 16) & 1:
        raise ValueError("must be the address of one interface, not zero nor a group address")
    return found


def broadcast_address(value: str) -> str:
    """Return an IPv4 address in its usual form. Raises ValueError."""
    return str(IPv4Address(value))


Mac = Annotated[str, StringConstraints(max_length=17), AfterValidator(mac_address)]


class Wake(Outbound):
    """Where magic packets are sent that wake a machine.

    `macs` are those of the interface that routes to the queen and of the ports below it, `broadcast` is the broadcast
    address of its network.
    """

    macs: Annotated[list[Mac], Field(min_length=1, max_length=MACS_MAX)]
    broadcast: Annotated[str, StringConstraints(max_length=15), AfterValidator(broadcast_address)] | None = None

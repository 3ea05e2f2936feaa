"""Calls on the system bus, one at a time and bounded in time.

jeepney's router is not used: it drops messages when a filter is full, and raises from its own nursery.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call
from jeepney.auth import AuthenticationError
from jeepney.io.trio import DBusConnection, open_dbus_connection

CALL_S = 10.0
DENIED = (
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.AuthFailed",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
)


class BusError(Exception):
    """A call failed; `denied` if the caller lacks permission."""

    def __init__(self, message: str, *, denied: bool = False) -> None:
        super().__init__(message)
        self.denied = denied


class Bus:
    """A connection to the system bus. Only one task may use it at a time."""

    def __init__(self, connection: DBusConnection) -> None:
        self._connection = connection

    async def call(
        self, service: str, path: str, interface: str, method: str, signature: str = "", body: tuple[Any, ...] = ()
    ) -> tuple[Any, ...]:
        """Call `method`; return its values. Raises BusError, also after CALL_S seconds."""
        address = DBusAddress(path, bus_name=service, interface=interface)
        message = new_method_call(address, method, signature or None, body)
        serial = next(self._connection.outgoing_serial)
        try:
            with trio.fail_after(CALL_S):
                await self._connection.send(message, serial=serial)
                while True:
                    reply = await self._connection.receive()
                    if reply.header.fields.get(HeaderFields.reply_serial) == serial:
                        break
        except trio.TooSlowError as error:
            raise BusError(f"no reply to {method} within {CALL_S:g} s") from error
        except (trio.BrokenResourceError, trio.EndOfChannel, OSError) as error:
            raise BusError("the connection to the system bus was lost") from error
        if reply.header.message_type is MessageType.error:
            name = str(reply.header.fields.get(HeaderFields.error_name))
            raise BusError(str(reply.body[0]).rstrip(".") if reply.body else name, denied=name in DENIED)
        return tuple(reply.body)


@asynccontextmanager
async def system_bus(*, fds: bool = False) -> AsyncIterator[Bus]:
    """Connect to the system bus for the duration of the block. `fds`: replies may have file descriptors.

    Raises BusError.
    """
    try:
        with trio.fail_after(CALL_S):
            connection = await open_dbus_connection("SYSTEM", enable_fds=fds)
    except (OSError, AuthenticationError, trio.TooSlowError, ExceptionGroup) as error:
        raise BusError("cannot connect to the system bus") from error
    try:
        yield Bus(connection)
    finally:
        await connection.aclose()

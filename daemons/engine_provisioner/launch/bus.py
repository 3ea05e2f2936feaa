"""One call at a time on the system bus: jeepney's connection, its errors in words, its waits bounded.

jeepney's router is not used: it drops what a full filter cannot take, and raises from a nursery of its own.
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
    """A call failed, on the way or by its receiver; `denied` where it was a matter of permission."""

    def __init__(self, words: str, *, denied: bool = False) -> None:
        super().__init__(words)
        self.denied = denied


class Bus:
    """A connection to the system bus. Not for two tasks at once."""

    def __init__(self, connection: DBusConnection) -> None:
        self._connection = connection

    async def call(
        self, service: str, path: str, interface: str, method: str, signature: str = "", body: tuple[Any, ...] = ()
    ) -> tuple[Any, ...]:
        """The values that `method` returns. Raises BusError, also after CALL_S seconds."""
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
            raise BusError(f"{method} was not answered within {CALL_S:g} s") from error
        except (trio.BrokenResourceError, trio.EndOfChannel, OSError) as error:
            raise BusError("the connection to the system bus broke off") from error
        if reply.header.message_type is MessageType.error:
            name = str(reply.header.fields.get(HeaderFields.error_name))
            raise BusError(str(reply.body[0]).rstrip(".") if reply.body else name, denied=name in DENIED)
        return tuple(reply.body)


@asynccontextmanager
async def system_bus() -> AsyncIterator[Bus]:
    """A connection for as long as the block lasts. Raises BusError where there is none to be had."""
    try:
        with trio.fail_after(CALL_S):
            connection = await open_dbus_connection("SYSTEM")
    except (OSError, AuthenticationError, trio.TooSlowError, ExceptionGroup) as error:
        raise BusError("the system bus cannot be reached") from error
    try:
        yield Bus(connection)
    finally:
        await connection.aclose()

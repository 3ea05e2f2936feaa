"""TLS over a socket stream with the interface of a plain one: a half-close, and access to the socket."""

import select
import ssl
import struct
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET

import trio


class TlsStream(trio.abc.HalfCloseableStream):
    """A TLS connection. Closing it closes the socket without close_notify, which HTTP allows."""

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        """Be the client of `server_hostname`, whose certificate is verified; without a name be the server."""
        server_side = server_hostname is None
        self._stream = stream
        self._tls = trio.SSLStream(
            stream, context, server_hostname=server_hostname, server_side=server_side, https_compatible=True
        )
        self.socket = stream.socket

    async def handshake(self) -> None:
        """Perform the TLS handshake. Raises BrokenResourceError, which `reason` explains."""
        await self._tls.do_handshake()

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's certificate as DER, whether or not it was accepted."""
        certificate: bytes | None = self._tls.getpeercert(binary_form=True)
        return certificate

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._tls.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._tls.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._tls.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Half-close the TCP connection: TLS has no half-close of its own."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._tls.aclose()


Wire = trio.SocketStream | TlsStream
"""A connection that carries HTTP."""

RESET = struct.pack("ii", 1, 0)
"""Value for SO_LINGER (socket(7)): close discards unsent data and resets the connection."""


def abort(wire: Wire) -> None:
    """Close at once, without waiting for a slow reader. Pending sends and receives fail."""
    with suppress(OSError):  # already closed
        wire.socket.setsockopt(SOL_SOCKET, SO_LINGER, RESET)
    wire.socket.close()


def hung_up(socket: trio.socket.SocketType) -> bool:
    """Return whether the peer has closed, even if its data is still unread, or this side has."""
    poll = select.poll()
    try:
        poll.register(socket, select.POLLRDHUP)
    except ValueError:  # a closed socket has no descriptor
        return True
    return bool(poll.poll(0))


REASONS = {
    "HTTP_REQUEST": "plain HTTP was sent to a TLS port",
    "WRONG_VERSION_NUMBER": "the server does not use TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client sent no certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server requires a client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not trust the CA of this certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client certificate has expired",
}


def reason(error: trio.BrokenResourceError) -> str | None:
    """Return why TLS failed, or None if the network failed or the peer left."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLEOFError | ssl.SSLSyscallError) or not isinstance(cause, ssl.SSLError):
        return None
    return REASONS.get(cause.reason, cause.reason.replace("_", " ").lower()) if cause.reason else str(cause)

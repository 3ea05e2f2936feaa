"""TLS over a socket's stream, with what is asked of a plain one: half a close, and the socket itself."""

import select
import ssl
import struct
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET

import trio


class Secured(trio.abc.HalfCloseableStream):
    """A TLS connection; closing it closes the socket, without a farewell (as HTTP allows, and its ends are known by
    other means)."""

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        """A client's side where `server_hostname`, whose certificate is wanted, is given; otherwise a server's."""
        server_side = server_hostname is None
        self._stream = stream
        self._tls = trio.SSLStream(
            stream, context, server_hostname=server_hostname, server_side=server_side, https_compatible=True
        )
        self.socket = stream.socket

    async def handshake(self) -> None:
        """Agree with the other side. Raises BrokenResourceError, of which `reason` tells more."""
        await self._tls.do_handshake()

    @property
    def shown(self) -> bytes | None:
        """The certificate that the other side has shown, accepted or not, as DER."""
        certificate: bytes | None = self._tls.getpeercert(binary_form=True)
        return certificate

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What comes."""
        return await self._tls.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        await self._tls.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        await self._tls.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say no more: TLS has no half a close of its own, TCP has."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close."""
        await self._tls.aclose()


Wire = trio.SocketStream | Secured
"""What HTTP is spoken over."""

RESET = struct.pack("ii", 1, 0)
"""As SO_LINGER (socket(7)): what is not sent at the close is thrown away, and the other side gets a reset."""


def abort(wire: Wire) -> None:
    """Close at once, without a wait for whoever reads nothing; sends and receives that are under way fail."""
    with suppress(OSError):  # it is closed already
        wire.socket.setsockopt(SOL_SOCKET, SO_LINGER, RESET)
    wire.socket.close()


def hung_up(socket: trio.socket.SocketType) -> bool:
    """Whether the other side has closed, though what it said before has not been read; or this side has."""
    poll = select.poll()
    try:
        poll.register(socket, select.POLLRDHUP)
    except ValueError:  # a closed socket has no number
        return True
    return bool(poll.poll(0))


WORDS = {
    "HTTP_REQUEST": "plain HTTP is spoken where TLS is wanted",
    "WRONG_VERSION_NUMBER": "what is spoken there is not TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no client certificate is shown",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "a client certificate is wanted there",
    "TLSV1_ALERT_UNKNOWN_CA": "our certificate is of no CA that is accepted there",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has ended",
}


def reason(error: trio.BrokenResourceError) -> str | None:
    """What TLS has against the connection, in words; None where it is the network that broke it, or the other side that
    left."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLEOFError | ssl.SSLSyscallError) or not isinstance(cause, ssl.SSLError):
        return None
    return WORDS.get(cause.reason, cause.reason.replace("_", " ").lower()) if cause.reason else str(cause)

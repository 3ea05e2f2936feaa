"""Errors of requests to other processes, one class per possible reaction of the caller."""


class UpstreamError(Exception):
    """The server was unreachable, broke off, or sent invalid HTTP; the text says which."""


class UpstreamTimeout(UpstreamError):
    """The server did not answer within the caller's limit."""


class Unreachable(UpstreamError):
    """No connection was made, so the server has not received the request."""


class NoTls(Unreachable):
    """The TLS handshake failed."""


class ConnectTimeout(UpstreamTimeout, Unreachable):
    """No connection was made within the caller's limit."""


class Unanswered(UpstreamError):
    """The server closed without a byte of an answer. `sent`: it may have received the whole request."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent

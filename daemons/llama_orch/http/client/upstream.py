"""What can go wrong with a request to another process, told apart by what the caller can do about it."""


class UpstreamError(Exception):
    """The other side could not be reached, broke off, or did not speak HTTP; the text says which."""


class UpstreamTimeout(UpstreamError):
    """The other side did not answer within the caller's limit."""


class Unreachable(UpstreamError):
    """There was no connection: the other side has not heard the request."""


class NoTls(Unreachable):
    """There was a connection, and no agreement on TLS: no certificate, or one that is not accepted."""


class ConnectTimeout(UpstreamTimeout, Unreachable):
    """There was no connection within the caller's limit."""


class Unanswered(UpstreamError):
    """The other side closed without a byte of an answer; `sent`: it may have the whole request."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent

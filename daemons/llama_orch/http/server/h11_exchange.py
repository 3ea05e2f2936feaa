"""Hot requests that h11 parses: those with a chunked body or an unusual head, and those that are not valid HTTP."""

from email.utils import formatdate

import h11
import trio

from llama_orch.contracts.errors import ErrorBody, ErrorCode
from llama_orch.http.server.exchange import AsgiApp, BrokenOff, ClientGone, Message
from llama_orch.http.server.hang_ups import HangUp
from llama_orch.http.server.hot_exchange import HEAD_LIMIT, HotExchange, receive
from llama_orch.http.tls.secured import Wire

HEAD_LIMIT_S = 30.0


def malformed(status: int) -> bytes:
    """Return the body of the answer to a request that is not HTTP/1.1; `status` is h11's hint."""
    message = "the request head is too long" if status == 431 else "the request is not valid HTTP/1.1"
    error = ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message)
    return error.model_dump_json(exclude_none=True).encode()


def malformed_fields(body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of that answer, which closes the connection."""
    length = (b"content-length", str(len(body)).encode())
    return [(b"content-type", b"application/json"), length, (b"connection", b"close")]


class H11Exchange(HotExchange):
    """One request and its answer over ASGI."""

    def __init__(self, stream: Wire, app: AsgiApp, hang_up: HangUp) -> None:
        super().__init__(stream, app, hang_up)
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        self._head: h11.Response | None = None
        self._body_read = False
        self._malformed: h11.RemoteProtocolError | None = None

    async def run(self, received: bytes) -> bytes | None:
        """Serve the request that begins with `received`. Return the bytes that follow it, or None to close."""
        try:
            request: h11.Event | None = None
            self._http.receive_data(received)
            with trio.move_on_after(HEAD_LIMIT_S):
                request = await self._next_event()
            if not isinstance(request, h11.Request):
                return None
            self._head_only = request.method == b"HEAD"
            version, headers = request.http_version.decode(), list(request.headers)
            scope = self._scope(request.method, request.target, version, headers)
            await self._app(scope, self.receive, self.send)
            self._discard_body()
            if self._ended and self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
                return bytes(self._http.trailing_data[0]) + self._next_request
        except (BrokenOff, ClientGone):
            return None
        except h11.RemoteProtocolError as error:
            self._malformed = error
        if self._malformed:
            await self._refuse(self._malformed)
        if self._http.their_state in (h11.SEND_BODY, h11.ERROR):
            await self._linger()
        return None

    def _discard_body(self) -> None:
        """Discard what has arrived of a body that the application did not read, including its end."""
        while self._http.their_state is h11.SEND_BODY and self._http.next_event() is not h11.NEED_DATA:
            pass

    async def _next_event(self) -> h11.Event:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await receive(self._stream))
        return event  # type: ignore[return-value]

    async def receive(self) -> Message:
        """Return the next chunk of the body; after the body, wait until the client disconnects."""
        if self._body_read:
            return await self._disconnect()
        try:
            event = await self._next_event()
        except h11.RemoteProtocolError as error:
            self._malformed = error  # the application sees a disconnect; `run` sends the answer
            return {"type": "http.disconnect"}
        if isinstance(event, h11.Data):
            return {"type": "http.request", "body": bytes(event.data), "more_body": True}
        self._body_read = True
        if isinstance(event, h11.EndOfMessage):
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.disconnect"}

    def _encoded(self, message: Message) -> bytes:
        if message["type"] == "http.response.start":
            date = (b"date", formatdate(usegmt=True).encode())
            self._head = h11.Response(status_code=message["status"], headers=[*message["headers"], date])
            return b""
        events: list[h11.Event] = [] if self._head is None else [self._head]
        self._head = None
        if message.get("body") and not self._head_only:
            events.append(h11.Data(data=message["body"]))
        if not message.get("more_body", False):
            events.append(h11.EndOfMessage())
            self._ended = True
        return b"".join(self._http.send(event) or b"" for event in events)

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Answer a request that is not valid HTTP, and close."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = malformed(error.error_status_hint)
            head = h11.Response(status_code=error.error_status_hint, headers=malformed_fields(body))
            await self._write(head, h11.Data(data=body), h11.EndOfMessage())

    async def _write(self, *events: h11.Event) -> None:
        await self._write_data(b"".join(self._http.send(event) or b"" for event in events))

"""Forms with files (multipart/form-data) as they arrive: fields are kept, the file goes to `take`. No I/O.

werkzeug's decoder finds the parts; it is imported when the first form comes. Version 3.1 adds a CR to a file when the
data ends within the last bytes of a boundary, so it gets no data that ends there.
"""

from collections.abc import Iterator
from email.message import Message

from llama_orch.contracts.errors import ApiError
from llama_orch.http.server.bodies import invalid

FIELD_BYTES = 4096
PARTS_LIMIT = 16
PENDING_BYTES = 1 << 20
"""The most that the decoder may hold back: a part's head, or what may be a boundary."""
NAME_LIMIT = 255


class Form:
    """One form. `fields` are complete once `feed` has got the whole body; `filename` is that of the file."""

    def __init__(self, content_type: str, file_field: str = "file") -> None:
        """Raises ApiError 400 for a body of another type."""
        from werkzeug.sansio.multipart import MultipartDecoder

        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self._file_field = file_field
        self._part: str | None = None
        self._in_file = False
        boundary = _boundary(content_type)
        self._held = bytearray()
        self._window = len(boundary) + len(b"\r\n----\r\n")
        self._decoder = MultipartDecoder(boundary, max_form_memory_size=PENDING_BYTES, max_parts=PARTS_LIMIT)

    def feed(self, data: bytes | None) -> Iterator[bytes]:
        """Yield what `data` has of the file. None is the end of the body. Raises ApiError 400."""
        self._held += data or b""
        cut = self._safe_cut() if data is not None else len(self._held)
        ready = bytes(self._held[:cut])
        del self._held[:cut]
        yield from self._decoded(ready)
        if data is None:
            yield from self._decoded(None)

    def _safe_cut(self) -> int:
        """Return how much of what is held ends before anything that may be the start of a boundary."""
        start = max(0, len(self._held) - self._window)
        ends = [found for sign in (b"\r", b"\n") if (found := self._held.find(sign, start)) >= 0]
        return min(ends, default=len(self._held))

    def _decoded(self, data: bytes | None) -> Iterator[bytes]:
        from werkzeug.exceptions import RequestEntityTooLarge
        from werkzeug.sansio.multipart import Data, Epilogue, Field, File, NeedData

        try:
            self._decoder.receive_data(data)
            while True:
                event = self._decoder.next_event()
                if isinstance(event, NeedData | Epilogue):
                    return
                if isinstance(event, File):
                    self._begin_file(event.name, event.filename)
                elif isinstance(event, Field):
                    self._in_file, self._part = False, event.name
                    self.fields[event.name] = ""
                elif isinstance(event, Data):
                    if self._in_file:
                        yield event.data
                    else:
                        self._add_to_field(event.data)
        except RequestEntityTooLarge as error:
            raise _refused("has too many parts, or a part that is too long") from error
        except ValueError as error:
            raise _refused(f"is not a valid form: {error}") from error

    def _begin_file(self, name: str, filename: str) -> None:
        if name != self._file_field or self.filename is not None:
            raise ApiError(400, invalid([(name, f"is a file; only {self._file_field!r} may be one, once")]))
        self._in_file, self.filename = True, filename[:NAME_LIMIT] or "upload"

    def _add_to_field(self, data: bytes) -> None:
        assert self._part is not None
        self.fields[self._part] += data.decode("utf-8", "replace")
        if len(self.fields[self._part]) > FIELD_BYTES:
            raise ApiError(400, invalid([(self._part, f"is longer than {FIELD_BYTES} bytes")]))


def _boundary(content_type: str) -> bytes:
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/form-data" or not boundary or not 1 <= len(boundary) <= 200:
        raise _refused("must be multipart/form-data with a boundary")
    return boundary.encode("latin-1", "replace")


def _refused(problem: str) -> ApiError:
    return ApiError(400, invalid([("body", problem)]))

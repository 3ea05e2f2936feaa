"""The stream that fills the board, read again whenever it ends."""

import trio

from llama_orch.contracts.gpus import GpuList
from llama_orch.http.client.client import UpstreamError
from llama_orch.http.client.sse import MalformedStream, read_events
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, parse_response
from orchctl.errors import CommandError
from orchctl.submit.event_stream import IdleLimited
from orchctl.top.board import Board

PATH = "/v2/events"
RETRY_S = 1.0
FIRST_LIMIT_S = 30.0
TRANSIENT = (ExitStatus.UNAVAILABLE, ExitStatus.TEMPORARY)


async def follow(queen: QueenClient, board: Board) -> None:
    """Keep the board up to date. It never returns; `board.problem` tells of a lost connection.

    Raises CommandError if the queen refuses, or does not answer the first time.
    """
    while True:
        try:
            await _read(queen, board)
            board.problem = "the stream ended"
        except (UpstreamError, MalformedStream, ValueError) as error:
            if board.hello is None and isinstance(error, UpstreamError):
                raise queen.unreachable(error) from error
            board.problem = str(error)
        except CommandError as error:
            if board.hello is None or error.status not in TRANSIENT:
                raise
            board.problem = error.message
        await trio.sleep(RETRY_S)


async def _read(queen: QueenClient, board: Board, *, until_ready: bool = False) -> None:
    """Read one stream to its end, or until the board is complete."""
    async with queen.request("GET", PATH) as response:
        async for event in read_events(IdleLimited(response.chunks())):
            board.apply(event.name, event.data, trio.current_time())
            if until_ready and board.ready:
                return


async def fill(queen: QueenClient, board: Board) -> None:
    """Fill the board once. Raises CommandError."""
    try:
        with trio.fail_after(FIRST_LIMIT_S):
            await _read(queen, board, until_ready=True)
    except trio.TooSlowError:
        message = f"queen-rbee at {queen.url} did not send its state within {FIRST_LIMIT_S:g} s"
        raise CommandError(message, "Check systemctl status queen-rbee.", ExitStatus.UNAVAILABLE) from None
    except UpstreamError as error:
        raise queen.unreachable(error) from error
    except (MalformedStream, ValueError) as error:
        raise CommandError(f"the stream of queen-rbee is broken: {error}", "", ExitStatus.UNAVAILABLE) from error
    # in HOME_PROFILE the queen asks for the GPUs only while somebody watches, and their first values come later
    if not board.situation(0).nodes:
        gpus = parse_response(GpuList, await queen.get("/v2/gpus")).gpus
        board.put("gpus", {gpu.uuid: gpu.model_dump() for gpu in gpus})

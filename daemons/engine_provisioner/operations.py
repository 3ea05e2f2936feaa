"""Long-running operations: started by a request, followed and cancelled by their id.

The nursery of `run` owns their tasks, so that they end with the daemon. The last KEPT ended operations can still be
read; nothing is stored on disk.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime

import trio

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.fetch.progress import Meter
from llama_orch.contracts.node_operations import NodeOperation, NodeOperationState, OperationProgress

log = logging.getLogger(__name__)

KEPT = 100
ACTIVE_LIMIT = 32
"""Operations that are queued or run."""
AT_ONCE = 2
"""Operations of a kind that run at the same time; others are queued."""
ERROR_LIMIT = 4096


class TooManyOperations(Exception):
    """ACTIVE_LIMIT operations have not ended yet."""


class Operation:
    """One operation, which its work updates: `detail` at any time, the bytes by `advance`."""

    def __init__(self, kind: str, subject: str, key: str) -> None:
        self.id = secrets.token_hex(8)
        self.key = key
        self.kind = kind
        self.subject = subject
        self.state = NodeOperationState.QUEUED
        self.detail: str | None = None
        self.error: str | None = None
        self.hint: str | None = None
        self.scope = trio.CancelScope()
        self._created_at = datetime.now(UTC)
        self._ended_at: datetime | None = None
        self._bytes_done = 0
        self._bytes_total: int | None = None
        self._meter = Meter(trio.current_time)

    def advance(self, bytes_done: int, bytes_total: int | None = None) -> None:
        """Set the bytes done so far, and the total if it is known."""
        self._bytes_done, self._bytes_total = bytes_done, bytes_total
        self._meter.progress(bytes_done, bytes_total)

    def end(self, state: NodeOperationState, *, error: str | None = None, hint: str | None = None) -> None:
        """Set the final state."""
        self.state, self.error, self.hint = state, error and error[:ERROR_LIMIT], hint and hint[:ERROR_LIMIT]
        self._ended_at = datetime.now(UTC)

    @property
    def view(self) -> NodeOperation:
        return NodeOperation(
            id=self.id,
            kind=self.kind,
            subject=self.subject,
            state=self.state,
            progress=self._progress(),
            detail=self.detail,
            error=self.error,
            hint=self.hint,
            created_at=self._created_at,
            ended_at=self._ended_at,
        )

    def _progress(self) -> OperationProgress:
        done, total = self._bytes_done, self._bytes_total
        if self.state is not NodeOperationState.RUNNING:
            return OperationProgress(bytes_done=done, bytes_total=total)
        found = self._meter.progress(done, total)
        return OperationProgress(bytes_done=done, bytes_total=total, rate_bytes_s=found.rate_bytes_s, eta_s=found.eta_s)


Work = Callable[[Operation], Awaitable[None]]
"""What an operation does. Ends it as failed by ProvisioningFailure or OSError, and otherwise as done."""


class Operations:
    """The owner of all operations. `run` must be running while they are started."""

    def __init__(self) -> None:
        self._operations: dict[str, Operation] = {}
        self._limiters: dict[str, trio.CapacityLimiter] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run operations until cancelled, which cancels them."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def start(self, kind: str, subject: str, work: Work, key: str = "") -> Operation:
        """Start an operation, or return the one of this kind and `key` that has not ended. Raises TooManyOperations.

        `subject` is shown. `key` may hold secrets; it is the subject by default.
        """
        key = key or subject
        active = list(self._active())
        for operation in active:
            if (operation.kind, operation.key) == (kind, key):
                return operation
        if len(active) >= ACTIVE_LIMIT:
            raise TooManyOperations
        operation = Operation(kind, subject, key)
        self._operations[operation.id] = operation
        self._forget_oldest()
        assert self._nursery is not None
        self._nursery.start_soon(self._perform, operation, work)
        return operation

    def get(self, operation_id: str) -> Operation | None:
        return self._operations.get(operation_id)

    def newest_first(self) -> list[Operation]:
        return list(reversed(self._operations.values()))

    def cancel(self, operation: Operation) -> None:
        """Cancel an operation, which ends soon after; nothing happens if it has ended."""
        operation.scope.cancel()

    def _active(self) -> Iterator[Operation]:
        return (operation for operation in self._operations.values() if not operation.state.ended)

    def _forget_oldest(self) -> None:
        ended = [operation.id for operation in self._operations.values() if operation.state.ended]
        for operation_id in ended[: max(0, len(ended) - KEPT)]:
            del self._operations[operation_id]

    async def _perform(self, operation: Operation, work: Work) -> None:
        limiter = self._limiters.setdefault(operation.kind, trio.CapacityLimiter(AT_ONCE))
        try:
            with operation.scope:
                async with limiter:
                    operation.state = NodeOperationState.RUNNING
                    await work(operation)
                operation.end(NodeOperationState.DONE)
        except ProvisioningFailure as failure:
            operation.end(NodeOperationState.FAILED, error=failure.message, hint=failure.hint or None)
        except OSError as error:
            operation.end(NodeOperationState.FAILED, error=error.strerror or str(error))
        if not operation.state.ended:
            operation.end(NodeOperationState.CANCELLED)
        log.info("%s of %s: %s", operation.kind, operation.subject, operation.error or operation.state.value)

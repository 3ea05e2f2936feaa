"""STATUS= of systemd."""

from pathlib import Path

import trio

from llama_orch.service.notify import Notifier
from pool_managerd.handoffs.state_file import StateFile
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.status import keep_status
from tests.unit.pool_managerd.values import found

LIMIT_S = 10.0


class RecordingNotifier(Notifier):
    """Records STATUS= values."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def status(self, text: str) -> None:
        self.lines.append(text)

    async def until(self, words: str, *, there: bool) -> None:
        with trio.fail_after(LIMIT_S):
            while not self.lines or (words in self.lines[-1]) is not there:  # noqa: ASYNC110 -- a list, no event
                await trio.sleep(0.01)


async def test_status_reports_an_unwritable_state_file(tmp_path: Path) -> None:
    state, notifier = tmp_path / "state", RecordingNotifier()
    state.write_text("in the way")
    store = StateFile(state)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_status, NodePools(), None, store, notifier)
        await store.save([found()])
        await notifier.until(
            f"pools.toml configures them; the pools cannot be saved in {state}/pools.json",
            there=True,
        )
        state.unlink()
        await store.save([found()])
        await notifier.until("cannot be saved", there=False)
        nursery.cancel_scope.cancel()

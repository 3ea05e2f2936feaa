"""Long lists are written beside the loop, and one at a time: who asks for many of them stops nobody else."""

import threading

import trio
import trio.testing

from llama_orch.contracts.pools import PoolList
from queen_rbee.api.views import ONE_AT_A_TIME, answer_of

EMPTY = PoolList(pools=[], count=0)
LIMIT_S = 10


async def test_the_loop_goes_on_while_a_list_is_made() -> None:
    gone_on = threading.Event()

    def made() -> PoolList:
        assert gone_on.wait(LIMIT_S)
        return EMPTY

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_of, made)
        await trio.testing.wait_all_tasks_blocked()
        gone_on.set()


async def test_lists_are_made_one_after_the_other() -> None:
    enough = threading.Event()

    def made() -> PoolList:
        assert enough.wait(LIMIT_S)
        return EMPTY

    async with trio.open_nursery() as nursery:
        for _list in range(4):
            nursery.start_soon(answer_of, made)
        await trio.testing.wait_all_tasks_blocked()
        assert ONE_AT_A_TIME.statistics().tasks_waiting == 3
        enough.set()

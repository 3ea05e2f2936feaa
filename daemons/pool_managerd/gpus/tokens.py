"""Asks engines on GPUs how many tokens they have generated, for the energy of 1,000 tokens."""

import trio

from llama_orch.engines import KINDS
from llama_orch.engines.engine_client import EngineClient
from pool_managerd.gpus.energy import EnergyMeter
from pool_managerd.pools.devices import devices_of
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.pools.replica import Replica

LIMIT_S = 2.0
SIZE_LIMIT = 1 << 20


async def count_tokens(node_pools: NodePools, meter: EnergyMeter, interval_s: float) -> None:
    """Ask every engine on a GPU that answers its health check, every `interval_s` seconds, forever."""
    while True:
        async with trio.open_nursery() as nursery:
            for replica in node_pools.replicas:
                if replica.live and devices_of(replica.handoff.device_mask, node_pools.gpus):
                    nursery.start_soon(_count, replica, meter)
        await trio.sleep(interval_s)


async def _count(replica: Replica, meter: EnergyMeter) -> None:
    client = EngineClient(replica.handoff.url, LIMIT_S, SIZE_LIMIT)
    tokens = await KINDS[replica.handoff.engine].tokens(client)
    if tokens is not None:
        meter.add_tokens(replica, tokens)

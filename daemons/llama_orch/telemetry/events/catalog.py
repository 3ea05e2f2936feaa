"""The table of all events, from which the journal catalog is generated."""

from llama_orch.telemetry.events import gpus, pools, power, provisioning, queen, service
from llama_orch.telemetry.events.event import Event

MODULES = (pools, gpus, power, provisioning, queen, service)
CATALOG = tuple(value for module in MODULES for value in vars(module).values() if isinstance(value, Event))

"""A directory through which one daemon hands documents to another: reading it safely, and waking when it changes.

Others can write to such a directory, so nothing in it is believed: no link is followed, nothing but small regular
files of known owners is read, and one bad file disturbs no good one.
"""

from llama_orch.spool.intake import Intake
from llama_orch.spool.judging import Bad, Found, scan
from llama_orch.spool.reading import SpoolUnreadable, trusted_owners
from llama_orch.spool.removal import Rejection, delete, reject
from llama_orch.spool.stored import Identity
from llama_orch.spool.waking import watch

__all__ = [
    "Bad",
    "Found",
    "Identity",
    "Intake",
    "Rejection",
    "SpoolUnreadable",
    "delete",
    "reject",
    "scan",
    "trusted_owners",
    "watch",
]

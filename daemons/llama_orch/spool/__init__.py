"""Spool directories, through which one daemon passes documents to another: safe reading, and change notification.

Other users can write to such a directory, so nothing in it is trusted: no link is followed, only small regular files
of known owners are read, and a bad file does not affect good ones.
"""

from llama_orch.spool.files import SpoolUnreadable, trusted_owners
from llama_orch.spool.handoffs import BadFile, HandoffFile, scan
from llama_orch.spool.identity import Identity
from llama_orch.spool.reader import SpoolReader
from llama_orch.spool.removal import Rejection, delete, reject
from llama_orch.spool.watching import watch

__all__ = [
    "BadFile",
    "HandoffFile",
    "Identity",
    "Rejection",
    "SpoolReader",
    "SpoolUnreadable",
    "delete",
    "reject",
    "scan",
    "trusted_owners",
    "watch",
]

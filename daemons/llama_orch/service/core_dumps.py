"""Keep the memory and the environment of a daemon, which hold tokens and prompts, out of core dumps and the journal.

LimitCORE=0 in a unit does not suffice. The kernel ignores it if core_pattern names a program, such as systemd-coredump,
which then saves no core but logs the environment of the process (COREDUMP_ENVIRON). A process that is not dumpable is
dumped by nobody, see prctl(2), PR_SET_DUMPABLE; only root can trace it or read its /proc/PID/environ. The stacks that
faulthandler logs contain no values. MADV_DONTDUMP would have to know where Python keeps the text of a token.
"""

import ctypes
import logging
import os

PR_SET_DUMPABLE = 4

log = logging.getLogger(__name__)


def disable() -> None:
    """Make this process undumpable; programs that it executes are not concerned. Logs a warning if that fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning("a core dump of this process could hold a token: %s", os.strerror(ctypes.get_errno()))

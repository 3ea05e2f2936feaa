"""What loading a daemon's modules left behind is given back to the system before the daemon settles down to wait.

Owns when Python looks for garbage cycles, too: seldom while requests are served, since each full look stops everything
for as long as there are objects (10,000 waiting tasks: 0.5 s for the slowest in a hundred, measured; 0.07 s with
THRESHOLDS), and when the daemon is idle instead. Young objects alone are looked at each YOUNG_S seconds.
"""

import ctypes
import gc

import trio

THRESHOLDS = (20_000, 50, 100)
"""A young look after so many new objects, an older one after so many young ones, a full one after so many of these."""
YOUNG_S = 1.0


def give_back() -> None:
    """Collect what is garbage and hand free heap pages back; 3 MB of 60 with glibc, nothing where libc cannot.

    What is alive now stays for good, so that the collector need not look at it again (gc.freeze).
    """
    collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


async def keep_young(interval_s: float = YOUNG_S) -> None:
    """Take a young look each `interval_s` seconds, for ever.

    Python begins one when so many more objects have come than gone. With thousands of pools that are told of anew all
    the time as many go as come: all of them are young then, and looked at in one go (0.1 s for 8,000, measured).
    """
    while True:
        await trio.sleep(interval_s)
        gc.collect(0)


def collect() -> None:
    """The full look, and free heap pages handed back: for a moment in which nobody waits, since all stands still."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)

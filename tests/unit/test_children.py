"""Finding child processes."""

import subprocess
import threading

from tests.conftest import children

LOOKS = 300


def test_child_is_found_while_threads_start_and_end() -> None:
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            brief = threading.Thread(target=over.is_set)
            brief.start()
            brief.join()

    busy = [threading.Thread(target=come_and_go) for _ in range(3)]
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        try:
            for thread in busy:
                thread.start()
            assert all(child.pid in children() for _look in range(LOOKS))
        finally:
            over.set()
    for thread in busy:
        thread.join()

"""The terminal keeps the keys that were typed while the view is drawn anew."""

import os
import pty
import select
from collections.abc import Callable

import pytest

from orchctl.top.screen import Screen


@pytest.mark.parametrize("again", [Screen.renew, Screen.enter])
def test_keys_that_wait_are_kept(monkeypatch: pytest.MonkeyPatch, again: Callable[[Screen], None]) -> None:
    master, slave = pty.openpty()
    with open(slave, "w") as stream, open(master, "wb", buffering=0) as keyboard, monkeypatch.context() as patch:
        patch.setattr("sys.stdin", stream)
        patch.setattr("sys.stdout", stream)
        with Screen(colours=False) as view:
            keyboard.write(b"q")
            assert select.select([slave], [], [], 20)[0], "the key has not arrived"
            again(view)
            assert select.select([slave], [], [], 0)[0], "the key is lost"
            assert os.read(slave, 1) == b"q"

"""The header Prefer: wait=N counts, all else is ignored."""

import pytest

from llama_orch.contracts.tasks import WAIT_LIMIT_S
from llama_orch.http.server.preferences import applied, preferred_wait_s


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=0", 0),
        ("wait=30", 30),
        ('Wait = "30"', 30),
        ("respond-async, wait=10", 10),
        ("handling=lenient; wait=3, wait=10; strict", 10),
        ("wait=1, wait=2", 1),
        (f"wait={WAIT_LIMIT_S}", WAIT_LIMIT_S),
    ],
)
def test_first_wait_counts(prefer, seconds):
    assert preferred_wait_s(prefer) == seconds


@pytest.mark.parametrize(
    "prefer",
    [
        None,
        "",
        "wait",
        "wait=",
        "wait=-1",
        "wait=1.5",
        "wait=\u0663",
        "await=1",
        'x="wait=1"',
        f"wait={WAIT_LIMIT_S + 1}",
    ],
)
def test_anything_else_is_ignored(prefer):
    assert preferred_wait_s(prefer) is None


def test_applied_preference_is_told():
    assert applied(0) == [("preference-applied", "wait=0")]
    assert applied(None) == []

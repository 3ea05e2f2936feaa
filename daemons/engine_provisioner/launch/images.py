"""Images of engines: the outcome of a pull, and what is known about an image."""

import re
from collections.abc import Sequence

from engine_provisioner.engine import Image, ImageOrder
from engine_provisioner.failures import ProvisioningFailure, Retry

PULL_LINES = 4
WARNING = re.compile(r"^time=\"[^\"]*\" level=(?:warning|info|debug)")
"""A line of podman's log; its time would make each failure a new one."""
NOT_THERE = re.compile(
    r"not found|manifest unknown|denied|unauthorized|invalid|no such|does not exist|short-name|docker://localhost/",
    re.I,
)


def pull_failure(image: str, manner: str, lines: Sequence[str]) -> ProvisioningFailure:
    """Return the failure of a pull that ended in this `manner`, with the last lines of its output."""
    last = [line for line in lines if line and not WARNING.match(line)][-PULL_LINES:]
    shown = ":\n" + "\n".join(last) if last else f": podman {manner}"
    wrong = any(NOT_THERE.search(line) for line in last)
    hint = "Correct the keys image and tag, or log in to the registry as root." if wrong else "Check the network."
    retry = Retry.AFTER_FIX if wrong else Retry.BACKOFF
    return ProvisioningFailure(f"cannot pull the image {image}{shown}\n{hint}", retry=retry)


def image_of(order: ImageOrder, facts: object) -> Image:
    """Return the image that `facts` of `exec_container` describe. Raises ProvisioningFailure."""
    names = ("image_id", "digest", "version", "help")
    if not isinstance(facts, dict) or not all(isinstance(facts.get(name), str) for name in names):
        raise ProvisioningFailure(f"the facts about the image {order.image} are invalid")
    return Image(order.runtime, order.image, *(facts[name] for name in names))

"""Read a small document from a server: an answer of an API, a manifest."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.fetch.backoff import Backoff
from engine_provisioner.fetch.remote_file import Refusal
from engine_provisioner.fetch.web import TRANSIENT, Broken, Resource, Web, retry_after_s

LIMIT = 32 << 20


@dataclass(frozen=True)
class Document:
    """An answer with status 200."""

    body: bytes
    headers: Mapping[str, str]

    def json(self, resource: Resource) -> Any:
        """Return the body as JSON. Raises ProvisioningFailure."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            message = f"{resource.shown}: the server's answer is not JSON"
            raise ProvisioningFailure(message, "Check that the URL is that of the API.", Retry.AFTER_FIX) from error


async def read(
    web: Web, resource: Resource, headers: Mapping[str, str], private: Mapping[str, str]
) -> Document | Refusal:
    """Return the document, or how the server refused it. Raises ProvisioningFailure.

    Breaks are retried here, so that a link that breaks often does not stop it.
    """
    backoff = Backoff()
    while True:
        try:
            return await _read_once(web, resource, headers, private)
        except Broken as broken:
            backoff = backoff.after_failure(0)
            delay = backoff.delay_s(random.random())  # noqa: S311 -- only spreads the load
            if delay is None:
                raise ProvisioningFailure(f"cannot reach the server of {resource.shown}: {broken}") from broken
            await trio.sleep(max(delay, broken.retry_after_s))


async def _read_once(
    web: Web, resource: Resource, headers: Mapping[str, str], private: Mapping[str, str]
) -> Document | Refusal:
    async with web.get(resource, headers, private) as answer:
        if answer.status in TRANSIENT:
            raise Broken(f"the server answered {answer.status}", retry_after_s(answer.headers))
        if answer.status != 200:
            return Refusal(answer.status, answer.headers, await answer.beginning())
        body = await answer.beginning(LIMIT + 1)
        if len(body) > LIMIT:
            message = f"{resource.shown}: the server's answer is larger than {LIMIT >> 20} MiB"
            raise ProvisioningFailure(message, "", Retry.AFTER_FIX)
        return Document(body, answer.headers)

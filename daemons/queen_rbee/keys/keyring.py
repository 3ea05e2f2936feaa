"""All keys of keys.toml: recognise the holder of a secret, and keep the accounts of all keys. One owner, no locks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from uuid import UUID, uuid5

from llama_orch.contracts.keys import KeySpec, KeyUsage
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.passage import Passage
from llama_orch.http.server.access import Entry
from llama_orch.keys.secret_keys import digest
from queen_rbee.keys.account import BYTES_PER_TOKEN, FIRST_ANSWER, Account, Charge, Totals
from queen_rbee.keys.permissions import model_named, permits_model, permitted, use_refusal
from queen_rbee.keys.shares import Share, Shares

SESSIONS = UUID("f2b1ab07-6a3c-4d0c-9a55-3a2f6e1f1b57")
"""The namespace of the ids of keys' sessions."""
MAX_FORMER = 1000
"""Removed keys whose accounts are kept, in case they come back."""

_holder: ContextVar[Account | None] = ContextVar("key_holder", default=None)
"""The account of the key that the current request has shown; None for the fleet token, and for callers without any."""


def holder_name() -> str | None:
    """Return the name of the key that the current request has shown, None if it has shown none."""
    account = _holder.get()
    return account.name if account else None


def may_see(owner: str | None) -> bool:
    """Return whether the current request may see what belongs to the key `owner` ("" or None: to none)."""
    account = _holder.get()
    return account is None or account.name == owner


def may_use_model(name: str) -> bool:
    """Return whether the current request may ask for the model `name`."""
    account = _holder.get()
    return account is None or account.key is None or permits_model(account.key, name)


class Keyring:
    """Empty until `replace`. False while there are no keys, and then without any effect."""

    def __init__(self, shares: Shares | None = None, totals: Mapping[str, Totals] = {}) -> None:
        self.shares = shares or Shares()
        self._accounts = {name: Account(None, name, self.shares, each) for name, each in totals.items()}
        """Of all keys, and of removed ones."""
        self._by_digest: dict[str, Account] = {}

    def __bool__(self) -> bool:
        return bool(self._by_digest)

    def __len__(self) -> int:
        return len(self._by_digest)

    def accounts(self) -> Iterable[Account]:
        """The accounts of the keys that exist, in the order of the file."""
        return self._by_digest.values()

    def restore_totals(self, totals: Mapping[str, Totals]) -> None:
        """Continue the counts of an earlier run. Call before `replace`."""
        for name, each in totals.items():
            self._accounts[name] = Account(None, name, self.shares, each)

    def totals(self) -> dict[str, Totals]:
        """The counts of all keys, and of removed ones."""
        return {name: account.totals for name, account in self._accounts.items()}

    def replace(self, keys: Sequence[KeySpec]) -> list[str]:
        """Make `keys` the keys. Return what has changed, in words. Open tasks of removed keys run on."""
        before = {account.name: account.key for account in self.accounts()}
        after = {key.name: key for key in keys}
        for name in before.keys() - after.keys():
            self._accounts[name].replace_key(None)
        for name, key in after.items():
            self._accounts.setdefault(name, Account(None, name, self.shares)).replace_key(key)
        self._by_digest = {key.sha256: self._accounts[key.name] for key in keys}
        self._forget_former()
        return [*_changes(before, after)]

    def _forget_former(self) -> None:
        former = [name for name, account in self._accounts.items() if account.key is None]
        for name in former[: max(0, len(former) - MAX_FORMER)]:
            del self._accounts[name]

    def leave(self) -> None:
        """Let the current request belong to no key: a connection may have carried one of a key before."""
        _holder.set(None)

    def enter(self, tokens: Sequence[str], method: str, path: str) -> Entry | None:
        """Let the current request belong to the key that one of `tokens` is the secret of; None if none is.

        The lookup is by digest: how long it takes says nothing about the secrets.
        """
        account = next((found for token in tokens if (found := self._by_digest.get(digest(token)))), None)
        if account is None or account.key is None:
            return None
        _holder.set(account)
        return Entry(use_refusal(account.key, method, path, datetime.now(UTC)))

    def permit(self, request: TaskRequest, passage: Passage | None) -> TaskRequest:
        """Return what the current request's key makes of `request`. Raises ApiError 403.

        A session belongs to its key: the same id of another key is another session.
        """
        account = _holder.get()
        if account is None or account.key is None:
            return request
        request = permitted(account.key, request, model_named(request, passage))
        if request.session_id is None:
            return request
        own = uuid5(SESSIONS, f"{account.name}/{request.session_id}")
        return request.model_copy(update={"session_id": own})

    def charge(self, prompt_bytes: int, max_tokens: int | None) -> Charge | None:
        """Return the charge for a task of the current request; None if it belongs to no key."""
        account = _holder.get()
        return account.charge(prompt_bytes, max_tokens) if account else None

    def charge_for(self, owner: str, prompt_bytes: int, max_tokens: int | None) -> Charge:
        """Return the charge for a task that the key `owner` had submitted before a restart."""
        account = self._accounts.setdefault(owner, Account(None, owner, self.shares))
        return account.charge(prompt_bytes, max_tokens)

    def share(self, charge: Charge | None, prompt_bytes: int, max_tokens: int | None) -> Share | None:
        """Return whose share a task takes; None while there are no keys.

        All tasks that belong to no key are one holder together, with weight 1.
        """
        if charge:
            return charge.share
        if not self:
            return None
        return Share("", 1.0, prompt_bytes // BYTES_PER_TOKEN + min(max_tokens or FIRST_ANSWER, FIRST_ANSWER))

    def usage(self) -> list[KeyUsage]:
        """Return the use of each key that the current request may see."""
        return [account.usage() for account in self.accounts() if may_see(account.name)]


def _changes(before: Mapping[str, KeySpec | None], after: Mapping[str, KeySpec]) -> Iterator[str]:
    added, removed = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
    changed = sorted(name for name in after.keys() & before.keys() if after[name] != before[name])
    for verb, names in (("added", added), ("removed", removed), ("changed", changed)):
        if names:
            shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
            yield f"keys {verb}: {shown}"

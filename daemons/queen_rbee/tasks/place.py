"""Where one task runs, and where it ran before in vain."""

from dataclasses import dataclass, field

ReplicaId = tuple[str, str]
"""Pool id and replica id."""


@dataclass
class Place:
    """The replica that a task runs on, and its failed attempts; changed by `Runs`.

    `excluded` replicas are not tried again before the task has waited in the queue; `tried` are all that failed.
    `breaks` counts the attempts that broke before the answer started: the task may be the cause. `displaced_at` is when
    it lost its first slot, on trio's clock. `last_failure` is None if its text is the engine's, for the client only.
    """

    pool_id: str | None = None
    replica_id: str | None = None
    kv_warmth: bool | None = None
    """Whether the session's last turn ran here; None without a session or an earlier turn."""
    displaced_at: float | None = None
    excluded: set[ReplicaId] = field(default_factory=set)
    tried: set[ReplicaId] = field(default_factory=set)
    breaks: int = 0
    last_failure: str | None = None

    def take(self, pool_id: str, replica_id: str) -> None:
        self.pool_id, self.replica_id = pool_id, replica_id

    def leave(self) -> None:
        """The task waits in the queue again, and may go to any replica from there."""
        self.pool_id = self.replica_id = None
        self.excluded.clear()

"""What an operator should know about an installation: judged from facts, without asking anybody. Pure."""

from collections.abc import Iterator
from enum import StrEnum

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.meta import Readiness, Version
from llama_orch.contracts.pools import PoolList, PoolState, PoolStatus
from llama_orch.http.tls.expiry import Validity, describe_end, validity
from llama_orch.service.exit import ExitStatus
from llama_orch.settings.tokens import TOKEN
from orchctl.check.facts import Facts
from orchctl.commands.nodes import CLOCK_SKEW_MS, skew
from orchctl.commands.pools import CONFIGURE, named
from orchctl.failure import Failure
from orchctl.tables import one_line

UNWELL = (PoolState.FAILED, PoolState.OFFLINE)


class Level(StrEnum):
    """How bad it is; only a problem makes the exit status other than 0."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(Outbound):
    """One thing that was looked at: what it is, how it is, and what to do unless it is well."""

    level: Level
    subject: str
    text: str
    mend: str = ""


def well(subject: str, text: str) -> Finding:
    """Nothing is to be done."""
    return Finding(level=Level.OK, subject=subject, text=text)


def warning(subject: str, text: str, mend: str) -> Finding:
    """It works, and may not for long, or not as it is meant."""
    return Finding(level=Level.WARNING, subject=subject, text=text, mend=mend)


def problem(subject: str, text: str, mend: str) -> Finding:
    """It does not work."""
    return Finding(level=Level.PROBLEM, subject=subject, text=text, mend=mend)


def of_queen(facts: Facts) -> Iterator[Finding]:
    """Whether she answers and is ready."""
    if isinstance(facts.version, Failure):
        mend = f"{facts.version.hint} See systemctl status queen-rbee on her machine.".strip()
        yield problem("queen", f"{facts.url}: {facts.version.message}", mend)
        return
    where = f"queen-rbee {facts.version.version} at {facts.url}"
    if isinstance(facts.ready, Failure):
        yield problem("queen", f"{where}: /ready: {facts.ready.message}", "See journalctl -x -u queen-rbee.")
    elif not facts.ready.ready:
        yield problem("queen", f"{where} is not ready: {reasons(facts.ready)}", "See journalctl -x -u queen-rbee.")
    else:
        yield well("queen", f"{where} is ready")


def reasons(ready: Readiness) -> str:
    """Why a daemon is not ready."""
    return "; ".join(map(one_line, ready.reasons)) or "no reason is given"


NO_TOKEN = f"Put the queen's token into a file and name that in {TOKEN.file}, or set {TOKEN.variable}."
TOKEN_MENDS = {
    "MISSING_TOKEN": NO_TOKEN,
    "BAD_TOKEN": "Compare with the queen's: journalctl -u queen-rbee | grep token_fp6",
    "NON_LOOPBACK_WITHOUT_TOKEN": f"Set {TOKEN.file} or {TOKEN.variable} on the queen, or ask from her own machine.",
    "FORBIDDEN_HOST": "Ask by an IP address or localhost, or add the name to LLORCH_ALLOWED_HOSTS on the queen.",
}


def refused(answer: object) -> bool:
    """Whether it is the token's fault that there is no answer."""
    return isinstance(answer, Failure) and answer.status is ExitStatus.NO_PERMISSION


def of_token(facts: Facts) -> Iterator[Finding]:
    """Whether we may ask."""
    answer = facts.pools
    if isinstance(answer, Failure) and refused(answer):
        own = f" (ours: {facts.token or 'none'})"
        yield problem("token", f"{answer.message}{own}", TOKEN_MENDS.get(answer.code or "", NO_TOKEN))
    elif isinstance(answer, Failure):
        return
    elif facts.token is None:
        yield well("token", "none is needed from here")
    elif facts.excused:
        yield well("token", f"none is needed from here, and {facts.token} is not looked at")
    else:
        yield well("token", f"{facts.token} is accepted")


def of_version(facts: Facts) -> Iterator[Finding]:
    """Whether we are of the queen's release."""
    if isinstance(facts.version, Version) and facts.version.version != facts.own_version:
        text = f"orchctl is {facts.own_version}, queen-rbee {facts.version.version}"
        yield warning("version", text, "Upgrade the older of the two.")


def of_clock(facts: Facts) -> Iterator[Finding]:
    """Whether the queen's clock is ours."""
    if facts.ahead_s is None:
        return
    if abs(facts.ahead_s) * 1000 > CLOCK_SKEW_MS:
        text = f"the queen's is {skew(facts.ahead_s)} this machine's"
        yield warning("clock", text, "Set both by NTP: timedatectl set-ntp true")
    else:
        yield well("clock", "the queen's and this machine's agree")


def of_pools(facts: Facts) -> Iterator[Finding]:
    """Whether there is something to run tasks on, and what is wrong with each pool."""
    if isinstance(facts.pools, PoolList):
        yield _together(facts.pools)
        for pool in facts.pools.pools:
            yield from _of_pool(pool)
    elif not refused(facts.pools):
        yield problem("pools", f"/v2/pools: {facts.pools.message}", "See journalctl -x -u queen-rbee.")


def _together(found: PoolList) -> Finding:
    ready = sum(pool.ready for pool in found.pools)
    text = f"{ready} of {len(found.pools)} ready"
    if ready:
        return well("pools", text)
    if found.pools:
        return problem("pools", text, "See below why; no task can run until one is.")
    mend = f"{CONFIGURE}. If they are configured: journalctl -x -u pool-managerd -u engine-provisioner"
    return problem("pools", "none is known", mend)


def _of_pool(pool: PoolStatus) -> Iterator[Finding]:
    subject = f"pool {named(pool)}"
    if pool.state in UNWELL:
        mend = f"On its machine: journalctl -x POOL_ID={pool.pool_id}"
        yield problem(subject, f"{pool.state}: {one_line(pool.last_error)}", mend)
    elif pool.draining or pool.state is PoolState.DRAINING:
        yield warning(subject, "it is drained and gets no tasks", f"To undo that: {_resume(pool)}")
    elif not pool.ready:
        why = f": {one_line(pool.last_error)}" if pool.last_error else ""
        yield warning(subject, f"{pool.state}, not ready{why}", f"If it lasts: journalctl -x POOL_ID={pool.pool_id}")
    if pool.circuit != "closed":
        make, until = (problem, "it is healthy") if pool.circuit == "open" else (warning, "its health check has ended")
        text = f"its circuit is {pool.circuit}: after failures the queen sends it no tasks until {until}"
        yield make(subject, text, f"See journalctl -u queen-rbee POOL_ID={pool.pool_id}")


def _resume(pool: PoolStatus) -> str:
    return f"orchctl resume {pool.pool_id}" + (f" --node {pool.node_id}" if pool.node_id else "")


SUBJECT = "certificate"


def of_certificates(facts: Facts) -> Iterator[Finding]:
    """A line for each that was seen."""
    for certificate in facts.certificates:
        text = f"{certificate.whose} {describe_end(certificate.ends, facts.looked_at)}"
        match validity(certificate.ends, facts.looked_at):
            case Validity.GOOD:
                yield well(SUBJECT, text)
            case Validity.ENDING:
                yield warning(SUBJECT, text, certificate.mend)
            case Validity.ENDED:
                yield problem(SUBJECT, text, certificate.mend)

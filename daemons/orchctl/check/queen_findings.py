"""Findings about the queen: whether it is ready and accepts the token, its version and its clock. Pure functions."""

from collections.abc import Iterator

from llama_orch.contracts.meta import Version
from llama_orch.settings.tokens import TOKEN
from orchctl.check.findings import Finding, format_reasons, ok, problem, token_refused, warning
from orchctl.check.observations import Observations
from orchctl.commands.nodes import CLOCK_SKEW_MS, clock_difference
from orchctl.errors import CommandError

JOURNAL = "See journalctl -x -u queen-rbee."
NTP = "Synchronize both clocks by NTP: timedatectl set-ntp true"
UPGRADE = "Upgrade the older of the two."
SET_TOKEN = f"Store the queen's token in a file and set {TOKEN.file} to its path, or set {TOKEN.variable}."
TOKEN_ADVICE = {
    "MISSING_TOKEN": SET_TOKEN,
    "BAD_TOKEN": "Compare it with the queen's: journalctl -u queen-rbee | grep token_fp6",
    "NON_LOOPBACK_WITHOUT_TOKEN": f"Set {TOKEN.file} or {TOKEN.variable} on the queen, or run orchctl on its machine.",
    "FORBIDDEN_HOST": "Use an IP address or localhost, or add the name to LLORCH_ALLOWED_HOSTS on the queen.",
}


def readiness_findings(observed: Observations) -> Iterator[Finding]:
    if isinstance(observed.version, CommandError):
        advice = f"{observed.version.hint} On its machine, see systemctl status queen-rbee.".strip()
        yield problem("queen", f"{observed.url}: {observed.version.message}", advice)
        return
    queen = f"queen-rbee {observed.version.version} at {observed.url}"
    if isinstance(observed.ready, CommandError):
        yield problem("queen", f"{queen}: /ready: {observed.ready.message}", JOURNAL)
    elif not observed.ready.ready:
        yield problem("queen", f"{queen} is not ready: {format_reasons(observed.ready)}", JOURNAL)
    else:
        yield ok("queen", f"{queen} is ready")


def token_findings(observed: Observations) -> Iterator[Finding]:
    result = observed.pools
    if isinstance(result, CommandError) and token_refused(result):
        text = f"{result.message} (orchctl's token: {observed.token or 'none'})"
        yield problem("token", text, TOKEN_ADVICE.get(result.code or "", SET_TOKEN))
    elif isinstance(result, CommandError):
        return
    elif observed.token is None:
        yield ok("token", "not required from here")
    elif observed.token_optional:
        yield ok("token", f"not required from here, so {observed.token} is not checked")
    else:
        yield ok("token", f"{observed.token} is accepted")


def version_findings(observed: Observations) -> Iterator[Finding]:
    if isinstance(observed.version, Version) and observed.version.version != observed.own_version:
        yield warning("version", f"orchctl is {observed.own_version}, queen-rbee {observed.version.version}", UPGRADE)


def clock_findings(observed: Observations) -> Iterator[Finding]:
    if observed.clock_ahead_s is None:
        return
    if abs(observed.clock_ahead_s) * 1000 > CLOCK_SKEW_MS:
        text = f"the queen's clock is {clock_difference(observed.clock_ahead_s)} this machine's"
        yield warning("clock", text, NTP)
    else:
        yield ok("clock", "the queen's clock and this machine's agree")

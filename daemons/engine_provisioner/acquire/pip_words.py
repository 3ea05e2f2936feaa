"""pip as it is run here: the variables that reach it, and what its output means. Pure."""

import re
from collections.abc import Mapping

from engine_provisioner.failures import ProvisioningFailure, Retry

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
PIP = (
    "PIP_PROXY",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_NO_INDEX",
    "PIP_TRUSTED_HOST",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_TIMEOUT",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_RETRIES",
    "PIP_CONFIG_FILE",
)
"""Where pip finds packages, and how it gets there; not where it puts them."""
DEFAULTS = {"PIP_RETRIES": "1"}
"""The pool itself is tried again, with a word in the journal; pip's own five retries can take minutes in silence."""

RETRYING = re.compile(r"connection broken by '(.+)': /")
SKIPPED = re.compile(r"Could not fetch URL \S+: (?!404 )(.+?)(?: - skipping)?$", re.MULTILINE)
PASSWORD = re.compile(r"(?<=://)[^/\s@'\"]+@")
OBJECT = re.compile(r"<[\w.]+ object at 0x[0-9a-f]+>: ")
QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"")
WORDS_LIMIT = 300


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of `environ` that pip gets; a proxy's URL may hold a password, so that none is an argument."""
    names = (*PROXIES, *map(str.lower, PROXIES), *CERTIFICATES, *PIP)
    return DEFAULTS | {name: environ[name] for name in names if environ.get(name)}


def failure(requirement: str, output: str) -> ProvisioningFailure:
    """What pip's output says of why `requirement` could not be installed."""
    said = shown(output)
    if reached := SKIPPED.search(said) or RETRYING.search(said):
        reason = _plain(reached[1])
        what = f"pip cannot install {requirement}: cannot reach the package index: {reason}"
        hint = (
            "Check the network; HTTPS_PROXY, NO_PROXY, PIP_PROXY and PIP_INDEX_URL can be set for engine-provisioner."
        )
        return ProvisioningFailure(what, hint)
    lines = said.strip().splitlines()
    last = next((line for line in reversed(lines) if line.startswith("ERROR")), said.strip()[-WORDS_LIMIT:])
    what = f"pip cannot install {requirement}: {last.removeprefix('ERROR: ')[:WORDS_LIMIT]}"
    hint = "See that the package index has this version for this Python."
    return ProvisioningFailure(what, hint, Retry.MENDING)


def shown(output: str) -> str:
    """`output` without the user names and passwords of URLs."""
    return PASSWORD.sub("***@", output)


def _plain(reason: str) -> str:
    """The texts in a Python exception as urllib3 prints it, without addresses in memory, which change each time."""
    reason = OBJECT.sub("", reason).strip()
    texts = [one or other for one, other in QUOTED.findall(reason)]
    return (": ".join(texts) or reason)[:WORDS_LIMIT]

"""What may be amiss with TLS where a daemon gives no answer."""

from llama_orch.http.client.upstream import NoTls, Unanswered, UpstreamError
from llama_orch.settings.tls import CA_FILE, CERT_FILE, KEY_FILE


def over_tls(url: str, error: UpstreamError) -> str:
    """What may be amiss with TLS where `url` gives no answer; nothing where it is something else."""
    if isinstance(error, NoTls):
        wanted = f"A certificate must be of the CA that {CA_FILE} names, and for the host of the URL"
        return f"{wanted}; without TLS the URL begins with http://."
    if not isinstance(error, Unanswered) or not url.startswith("http"):
        return ""
    if url.startswith("https:"):
        return f"Is a client certificate wanted? {CERT_FILE} and {KEY_FILE} name one of the CA that it is held against."
    return "Is TLS spoken there? Then the URL begins with https://."

"""URLs as messages and records may show them."""

from urllib.parse import urlsplit


def without_secrets(url: str) -> str:
    """Return `url` without credentials, query and fragment, which may be secret; a local path as it is."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http"):
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

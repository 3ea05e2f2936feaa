"""Secrets of keys: how they are made, and how they are recognised."""

import secrets
from hashlib import sha256

PREFIX = "sk-orch-"
"""Lets people and scanners of published code recognise such a secret."""


def new_secret() -> str:
    """Return a random secret of 256 bits, which LLORCH_API_TOKEN would accept too."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Return the digest by which keys.toml knows the secret, 64 hex digits."""
    return sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()

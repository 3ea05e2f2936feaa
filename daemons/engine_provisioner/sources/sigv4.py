"""AWS Signature Version 4 of a GET request. Pure; no library is worth its size for this (boto3 has 34 MB).

See https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY_BODY = hashlib.sha256().hexdigest()


@dataclass(frozen=True, repr=False)
class Keys:
    """Credentials for S3. `session_token` is set for temporary ones."""

    key_id: str
    secret: str
    session_token: str | None = None


def signed_headers(url: str, keys: Keys, region: str, now: datetime) -> Mapping[str, str]:
    """Return the headers that sign a GET of `url` at `now` (UTC). The path of `url` must be percent-encoded."""
    parts = urlsplit(url)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    own = {"x-amz-content-sha256": EMPTY_BODY, "x-amz-date": stamp}
    if keys.session_token:
        own["x-amz-security-token"] = keys.session_token
    signed = {"host": parts.netloc, **own}
    query = "&".join(sorted(pair if "=" in pair else f"{pair}=" for pair in parts.query.split("&") if pair))
    names = ";".join(sorted(signed))
    lines = [f"{name}:{signed[name]}" for name in sorted(signed)]
    canonical = "\n".join(["GET", parts.path or "/", query, *lines, "", names, EMPTY_BODY])
    scope = f"{day}/{region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{keys.secret}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    signature = _hmac(key, "\n".join([ALGORITHM, stamp, scope, digest])).hex()
    credential = f"Credential={keys.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**own, "authorization": f"{ALGORITHM} {credential}"}


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()

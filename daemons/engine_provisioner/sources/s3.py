"""Models in S3 and what speaks its protocol (MinIO, Garage, Ceph): `s3://BUCKET/KEY.gguf`.

Addresses are in path style. Each request is signed anew, so that a download may take longer than a signature is valid.
An ETag is a version and no checksum: for objects uploaded in parts it is no digest of the content.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from urllib.parse import quote, urlsplit

import trio

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.fetch.remote_file import Refusal
from engine_provisioner.fetch.web import Web, is_cleartext
from engine_provisioner.sources.aws_access import AwsAccess, read_access
from engine_provisioner.sources.https import by_name, stored
from engine_provisioner.sources.sigv4 import signed_headers
from engine_provisioner.sources.source import ModelRequest, Resolved, Source, SourceContext

REFERENCE = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>[^?#]{0,1023}[^/?#])")
CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>")
SET_KEYS = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in /etc/llama-orch/engine-provisioner.env"


def check(ref: str) -> None:
    """Raise ValueError if `ref` is malformed."""
    if not REFERENCE.fullmatch(ref):
        raise ValueError("must be s3://BUCKET/KEY, with the key of a file")


async def resolve(request: ModelRequest, context: SourceContext, _web: Web) -> Resolved:
    """Return the object and its other parts; the server is not asked. Raises ProvisioningFailure."""
    access = await trio.to_thread.run_sync(read_access, context.settings, context.home)
    match = REFERENCE.fullmatch(request.ref)
    assert match is not None
    if is_cleartext(access.endpoint) and not request.checksum:
        message = f"{access.endpoint} is plain http, which does not protect {request.ref}"
        raise ProvisioningFailure(message, "Set a checksum, or an endpoint with https://.", Retry.AFTER_FIX)
    url = f"{access.endpoint}/{match['bucket']}/{quote(match['key'], safe='/~')}"
    files = (
        replace(file, headers=partial(_headers, access, file.url), explain=partial(_explain, request.ref, access))
        for file in by_name(request, context, url)
    )
    return Resolved(request.ref, None, tuple(files))


async def _headers(access: AwsAccess, url: str, _renew: bool) -> Mapping[str, str]:
    return signed_headers(url, access.keys, access.region, datetime.now(UTC)) if access.keys else {}


def _explain(ref: str, access: AwsAccess, refusal: Refusal) -> ProvisioningFailure:
    """Return the failure that an answer of S3 means, by the code in its body."""
    found = CODE.search(refusal.body)
    code = found[1].decode() if found else ""
    server = urlsplit(access.endpoint).netloc
    problems = {
        "NoSuchBucket": (f"{server} has no such bucket", "Correct the reference, or AWS_ENDPOINT_URL_S3."),
        "NoSuchKey": ("the bucket has no such key", "Correct the reference."),
        "InvalidAccessKeyId": (f"{server} does not know the access key", f"{SET_KEYS}."),
        "SignatureDoesNotMatch": (f"{server} refuses the signature", "Correct AWS_SECRET_ACCESS_KEY."),
        "ExpiredToken": ("the session token has expired", "Renew AWS_SESSION_TOKEN."),
        "RequestTimeTooSkewed": ("the clock of this machine is wrong", "Set it; timedatectl(1) shows it."),
    }
    wrong_region = ("the bucket is in another region", f"Set AWS_REGION; it is {access.region} now.")
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        problem, hint = wrong_region
    elif code in problems:
        problem, hint = problems[code]
    elif refusal.status == 404:
        problem, hint = "it does not exist", "Correct the reference."
    elif refusal.status in (401, 403):
        problem, hint = f"{server} denies access", f"{SET_KEYS} to keys that may read it."
    else:
        problem, hint = f"{server} answered {refusal.status} {code}".rstrip(), ""
    return ProvisioningFailure(f"{ref}: {problem}", hint, Retry.AFTER_FIX)


SOURCE = Source(("s3://",), "s3://", check, stored, resolve)

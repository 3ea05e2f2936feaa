"""Requests for s3:// models are signed as AWS documents it, with the keys and the endpoint that its tools would use."""

import configparser
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.sources import s3
from engine_provisioner.sources.aws_access import AwsAccess, read_access
from engine_provisioner.sources.model_fetcher import Watch
from engine_provisioner.sources.sigv4 import Keys, signed_headers
from engine_provisioner.sources.source import ModelRequest
from tests.imitations.web_server import Reply, Request, WebServer
from tests.unit.engine_provisioner.fetching import context, fetcher
from tests.unit.engine_provisioner.gguf_files import gguf

KEYS = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
ENV = {"AWS_ACCESS_KEY_ID": KEYS.key_id, "AWS_SECRET_ACCESS_KEY": KEYS.secret}
MODEL = gguf(2000)


@pytest.mark.parametrize(
    ("query", "signature"),
    [
        ("?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("?max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_signature_is_that_of_the_documentation(query: str, signature: str) -> None:
    """The examples are from docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html."""
    url = f"https://examplebucket.s3.amazonaws.com/{query}"
    headers = signed_headers(url, KEYS, "us-east-1", datetime(2013, 5, 24, tzinfo=UTC))
    assert headers["authorization"].endswith(f"Signature={signature}")


def test_session_token_is_signed() -> None:
    headers = signed_headers("https://h/b/k", Keys("a", "b", "token"), "r", datetime(2013, 5, 24, tzinfo=UTC))
    assert headers["x-amz-security-token"] == "token"
    assert "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token" in headers["authorization"]


def access(tmp_path: Path, environ: Mapping[str, str]) -> AwsAccess:
    found = context(tmp_path, environ)
    return read_access(found.settings, found.home)


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({"AWS_ENDPOINT_URL": "https://a", "AWS_ENDPOINT_URL_S3": "https://b/"}, "https://b"),
        ({"AWS_ENDPOINT_URL": "https://a"}, "https://a"),
        (
            {"AWS_ENDPOINT_URL": "https://a", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            "https://s3.us-east-1.amazonaws.com",
        ),
        ({"AWS_REGION": "eu-west-3"}, "https://s3.eu-west-3.amazonaws.com"),
    ],
)
def test_endpoint_follows_the_variables(tmp_path: Path, environ: dict[str, str], endpoint: str) -> None:
    assert access(tmp_path, environ).endpoint == endpoint


def write_aws_files(home: Path) -> None:
    (home / ".aws").mkdir(parents=True)
    shared, config = configparser.RawConfigParser(), configparser.RawConfigParser()
    shared["models"] = {"aws_access_key_id": "FILEKEY", "aws_secret_access_key": "FILESECRET"}
    config["profile models"] = {"region": "eu-north-1", "endpoint_url": "https://files"}
    for name, parser in (("credentials", shared), ("config", config)):
        with (home / ".aws" / name).open("w") as file:
            parser.write(file)


def test_profile_is_read_from_the_files_of_aws(tmp_path: Path) -> None:
    write_aws_files(tmp_path / "home")
    assert access(tmp_path, {**ENV, "AWS_PROFILE": "models"}) == AwsAccess(
        "https://files", "eu-north-1", Keys("FILEKEY", "FILESECRET")
    )
    assert access(tmp_path, ENV).keys == KEYS
    with pytest.raises(ProvisioningFailure, match="AWS_PROFILE=other is in neither"):
        access(tmp_path, {"AWS_PROFILE": "other"})


def test_keys_are_not_in_the_text_of_their_values() -> None:
    assert KEYS.secret not in repr(AwsAccess("https://s", "r", KEYS))


async def test_each_request_is_signed_and_parts_are_fetched(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(MODEL)

    async def answer(_request: Request) -> Reply:
        return Reply(200, path, {"etag": '"v1"'})

    async with WebServer(answer).serving() as server:
        environ = {**ENV, "AWS_ENDPOINT_URL_S3": server.url}
        request = ModelRequest("s3://bucket/a b/m-00001-of-00002.gguf")
        model = await fetcher(tmp_path / "cache", environ).obtain(request, Watch())
    assert model.path.name == "m-00001-of-00002.gguf"
    assert model.path.with_name("m-00002-of-00002.gguf").read_bytes() == MODEL
    assert [seen.path for seen in server.requests] == [
        "/bucket/a b/m-00001-of-00002.gguf",
        "/bucket/a b/m-00002-of-00002.gguf",
    ]
    assert all(seen.headers["authorization"].startswith("AWS4-HMAC-SHA256") for seen in server.requests)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "NoSuchKey", "the bucket has no such key"),
        (404, "NoSuchBucket", "has no such bucket"),
        (403, "SignatureDoesNotMatch", "Correct AWS_SECRET_ACCESS_KEY"),
        (403, "AccessDenied", "denies access. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in"),
        (301, "PermanentRedirect", "the bucket is in another region. Set AWS_REGION"),
    ],
)
async def test_refusal_is_explained(tmp_path: Path, status: int, code: str, words: str) -> None:
    async def answer(_request: Request) -> Reply:
        return Reply(status, f"<Error><Code>{code}</Code><Message>secret</Message></Error>".encode())

    async with WebServer(answer).serving() as server:
        fetch = fetcher(tmp_path, {**ENV, "AWS_ENDPOINT_URL_S3": server.url})
        with pytest.raises(ProvisioningFailure) as caught:
            await fetch.obtain(ModelRequest("s3://bucket/m.gguf"), Watch())
    assert words in str(caught.value)
    assert KEYS.secret not in str(caught.value)


async def test_plain_http_needs_a_checksum(tmp_path: Path) -> None:
    fetch = fetcher(tmp_path, {"AWS_ENDPOINT_URL_S3": "http://192.0.2.1"})
    with pytest.raises(ProvisioningFailure, match="is plain http"):
        await fetch.obtain(ModelRequest("s3://bucket/m.gguf"), Watch())


@pytest.mark.parametrize("ref", ["s3://", "s3://b", "s3://bucket", "s3://bucket/", "s3://bucket/dir/", "s3://B!/k"])
def test_malformed_reference_is_refused(ref: str) -> None:
    with pytest.raises(ValueError, match="must be s3://BUCKET/KEY"):
        s3.check(ref)

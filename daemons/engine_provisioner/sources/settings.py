"""The settings of downloads and model sources. Those of other tools keep their names and meanings."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from llama_orch.settings import Var
from llama_orch.settings.shared import Common
from llama_orch.settings.types import BaseUrl, ByteRate, LooseFlag, Password

A_FILE = "the path of a file"
A_DIRECTORY = "the path of a directory"
PRINTABLE = "1 to 256 printable ASCII characters without spaces"
REGION_PATTERN = r"^[a-z0-9][a-z0-9-]{0,63}$"
REGION_WORDS = "lower-case letters, digits and -"


class FetchSettings(Common):
    """The settings of all downloads."""

    download_limit: Annotated[
        ByteRate | None,
        Field(ge=64 << 10, le=1 << 40),
        Var(
            "ENGINE_PROVISIONER_DOWNLOAD_LIMIT",
            "Bandwidth of all downloads together, in bytes per second.",
            more="K, M and G mean 1024, 1024^2 and 1024^3. Without it, downloads are as fast as the network.",
            example="20M",
            allowed="a number from 65536 to 1024G, with K, M or G",
            addition=True,
        ),
    ] = None


class HubSettings(Common):
    """The settings of hf: models."""

    hf_token: Annotated[
        Password | None,
        Var(
            "HF_TOKEN",
            "Token for gated and private repositories of the Hugging Face hub. Prefer /etc/llama-orch/hf-token, which "
            "the unit passes as the credential hf-token.",
            more="The credential takes precedence. Without both, the token is read from HF_TOKEN_PATH. It is sent to "
            "HF_ENDPOINT only, not to the servers that it redirects to.",
            example="hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            secret=True,
            credential="hf-token",
            addition=True,
        ),
    ] = None
    hf_token_path: Annotated[
        Path | None,
        Var(
            "HF_TOKEN_PATH",
            "File with the token of the Hugging Face hub.",
            more="If it is not set: token in HF_HOME, or in ~/.cache/huggingface.",
            example="/etc/llama-orch/hf-token",
            allowed=A_FILE,
            addition=True,
        ),
    ] = None
    hf_endpoint: Annotated[
        BaseUrl,
        Var(
            "HF_ENDPOINT",
            "URL of the Hugging Face hub or of a mirror.",
            example="https://hub.example.org",
            addition=True,
        ),
    ] = "https://huggingface.co"
    hf_offline: Annotated[
        LooseFlag,
        Var(
            "HF_HUB_OFFLINE",
            "Whether hf: models come from the cache only.",
            example="1",
            addition=True,
        ),
    ] = False
    hf_home: Annotated[
        Path | None,
        Var(
            "HF_HOME",
            "Directory with the cache (hub) and the token of the Hugging Face hub, shared with other tools.",
            more="If it is not set: huggingface in ENGINE_PROVISIONER_CACHE_DIR. "
            "Outside /var/cache/llama-orch it needs ReadWritePaths= in a drop-in of engine-provisioner.service, "
            "and the user llama-engine must be able to read it.",
            example="/srv/huggingface",
            allowed=A_DIRECTORY,
            addition=True,
        ),
    ] = None
    hf_hub_cache: Annotated[
        Path | None,
        Var(
            "HF_HUB_CACHE",
            "Directory with the cache of the Hugging Face hub.",
            more="If it is not set: hub in HF_HOME.",
            example="/srv/huggingface/hub",
            allowed=A_DIRECTORY,
            addition=True,
        ),
    ] = None


class S3Settings(Common):
    """The settings of s3:// models."""

    aws_key_id: Annotated[
        str | None,
        StringConstraints(pattern=r"^[\x21-\x7e]{1,256}$"),
        Var(
            "AWS_ACCESS_KEY_ID",
            "Access key for s3:// models.",
            more="Without it, the keys of the profile are used, and without those, requests are not signed, which "
            "public buckets allow.",
            example="AKIAIOSFODNN7EXAMPLE",
            allowed=PRINTABLE,
            addition=True,
        ),
    ] = None
    aws_secret: Annotated[
        Password | None,
        Var(
            "AWS_SECRET_ACCESS_KEY",
            "Secret key for s3:// models.",
            more="It is never sent.",
            example="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            secret=True,
            addition=True,
        ),
    ] = None
    aws_session_token: Annotated[
        Password | None,
        Var(
            "AWS_SESSION_TOKEN",
            "Session token that belongs to temporary keys.",
            example="IQoJb3JpZ2luX2VjEXAMPLE",
            secret=True,
            addition=True,
        ),
    ] = None
    aws_region: Annotated[
        str | None,
        StringConstraints(pattern=REGION_PATTERN),
        Var(
            "AWS_REGION",
            "Region of the buckets.",
            more="If it is not set: AWS_DEFAULT_REGION, else that of the profile, else us-east-1.",
            example="eu-central-1",
            allowed=REGION_WORDS,
            addition=True,
        ),
    ] = None
    aws_default_region: Annotated[
        str | None,
        StringConstraints(pattern=REGION_PATTERN),
        Var(
            "AWS_DEFAULT_REGION",
            "Region of the buckets if AWS_REGION is not set.",
            example="eu-central-1",
            allowed=REGION_WORDS,
            addition=True,
        ),
    ] = None
    aws_endpoint_s3: Annotated[
        BaseUrl | None,
        Var(
            "AWS_ENDPOINT_URL_S3",
            "URL of a server that speaks the protocol of S3, such as MinIO, Garage or Ceph.",
            more="If it is not set: AWS_ENDPOINT_URL, else that of the profile, else https://s3.REGION.amazonaws.com. "
            "Buckets are addressed in path style. With plain http to another machine, models need a checksum.",
            example="https://s3.example.org",
            addition=True,
        ),
    ] = None
    aws_endpoint: Annotated[
        BaseUrl | None,
        Var(
            "AWS_ENDPOINT_URL",
            "URL of the server of S3 if AWS_ENDPOINT_URL_S3 is not set.",
            example="https://s3.example.org",
            addition=True,
        ),
    ] = None
    aws_ignore_endpoints: Annotated[
        LooseFlag,
        Var(
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
            "Whether to use AWS itself, whatever AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL and the profile say.",
            example="true",
            addition=True,
        ),
    ] = False
    aws_profile: Annotated[
        str | None,
        StringConstraints(pattern=r"^[^\x00-\x1f\x7f\[\]]{1,256}$"),
        Var(
            "AWS_PROFILE",
            "Profile in the files of the AWS tools. If it is set, its keys come before AWS_ACCESS_KEY_ID.",
            more="If it is not set: the profile named default, whose keys come after AWS_ACCESS_KEY_ID. "
            "Only keys that are in the files are supported, not single sign-on, roles or processes.",
            example="models",
            allowed="the name of a profile",
            addition=True,
        ),
    ] = None
    aws_credentials_file: Annotated[
        Path | None,
        Var(
            "AWS_SHARED_CREDENTIALS_FILE",
            "File with the keys of the profiles.",
            more="If it is not set: ~/.aws/credentials.",
            example="/etc/llama-orch/aws-credentials",
            allowed=A_FILE,
            addition=True,
        ),
    ] = None
    aws_config_file: Annotated[
        Path | None,
        Var(
            "AWS_CONFIG_FILE",
            "File with the regions and endpoints of the profiles.",
            more="If it is not set: ~/.aws/config.",
            example="/etc/llama-orch/aws-config",
            allowed=A_FILE,
            addition=True,
        ),
    ] = None


class RegistrySettings(Common):
    """The settings of oci:// models."""

    registry_auth_file: Annotated[
        Path | None,
        Var(
            "REGISTRY_AUTH_FILE",
            "File with the credentials for the registries of oci:// models, as podman login and docker login write it.",
            more="If it is not set: containers/auth.json in XDG_RUNTIME_DIR, ~/.config/containers/auth.json, "
            "~/.docker/config.json. Only credentials in the file itself are supported, not credential helpers.",
            example="/etc/llama-orch/registry-auth.json",
            allowed=A_FILE,
            addition=True,
        ),
    ] = None


class SourceSettings(FetchSettings, HubSettings, S3Settings, RegistrySettings):
    """The settings of all model sources."""

"""Where S3 is and with which keys, from variables and from the files of the AWS tools.

Keys from ~/.aws/sso, credential_process, instance roles and `source_profile` are not supported.
"""

import configparser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.sources.settings import S3Settings
from engine_provisioner.sources.sigv4 import Keys

REGION = "us-east-1"


@dataclass(frozen=True)
class AwsAccess:
    """How to reach S3. Without `keys` requests are not signed, which public buckets allow."""

    endpoint: str
    region: str
    keys: Keys | None


def read_access(settings: S3Settings, home: Path | None) -> AwsAccess:
    """Return the access that the settings and files give. Blocks; raises ProvisioningFailure."""
    directory = home / ".aws" if home else None
    profile = settings.aws_profile or "default"
    config = _section(settings.aws_config_file or (directory and directory / "config"), profile, "profile ")
    shared = _section(settings.aws_credentials_file or (directory and directory / "credentials"), profile)
    if settings.aws_profile and not config and not shared:
        message = f"AWS_PROFILE={profile} is in neither the credentials file nor the configuration file of AWS"
        raise ProvisioningFailure(message, "Set AWS_SHARED_CREDENTIALS_FILE, or correct AWS_PROFILE.", Retry.AFTER_FIX)
    region = settings.aws_region or settings.aws_default_region or config.get("region") or REGION
    return AwsAccess(_endpoint(settings, config, region), region, _keys(settings, {**config, **shared}))


def _keys(settings: S3Settings, section: Mapping[str, str]) -> Keys | None:
    if settings.aws_key_id and settings.aws_secret and not settings.aws_profile:
        token = settings.aws_session_token
        return Keys(
            settings.aws_key_id, settings.aws_secret.get_secret_value(), token.get_secret_value() if token else None
        )
    key_id, secret = section.get("aws_access_key_id"), section.get("aws_secret_access_key")
    return Keys(key_id, secret, section.get("aws_session_token")) if key_id and secret else None


def _endpoint(settings: S3Settings, section: Mapping[str, str], region: str) -> str:
    if not settings.aws_ignore_endpoints:
        configured = settings.aws_endpoint_s3 or settings.aws_endpoint or section.get("endpoint_url")
        if configured:
            return configured.rstrip("/")
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://s3.{region}.{suffix}"


def _section(path: Path | None, profile: str, prefix: str = "") -> Mapping[str, str]:
    """Return the profile in an INI file; empty if there is none."""
    if path is None:
        return {}
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(errors="replace"))
    except OSError:
        return {}
    except configparser.Error as error:
        message = f"{path} is not a configuration file of AWS: {error.message.splitlines()[0]}"
        raise ProvisioningFailure(message, "Correct it.", Retry.AFTER_FIX, [path]) from error
    for name in (profile, prefix + profile):
        if parser.has_section(name):
            return dict(parser.items(name))
    return {}

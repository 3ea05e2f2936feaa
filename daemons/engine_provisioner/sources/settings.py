"""The settings of downloads and model sources. Those of other tools keep their names and meanings."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from llama_orch.settings import Var
from llama_orch.settings.shared import Common
from llama_orch.settings.types import BaseUrl, ByteRate, LooseFlag, Password

A_FILE = "the path of a file"
A_DIRECTORY = "the path of a directory"


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
            addition=True,
        ),
    ] = None
    hf_token_path: Annotated[
        Path | None,
        Var(
            "HF_TOKEN_PATH",
            "File with the token of the Hugging Face hub.",
            example="/etc/llama-orch/hf-token",
            allowed=A_FILE,
            default="token in HF_HOME, or in ~/.cache/huggingface",
            addition=True,
        ),
    ] = None
    hf_endpoint: Annotated[
        BaseUrl | None,
        Var(
            "HF_ENDPOINT",
            "URL of the Hugging Face hub or of a mirror.",
            example="https://hub.example.org",
            default="https://huggingface.co",
            addition=True,
        ),
    ] = None
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
            more="Outside /var/cache/llama-orch it needs ReadWritePaths= in a drop-in of engine-provisioner.service, "
            "and the user llama-engine must be able to read it.",
            example="/srv/huggingface",
            allowed=A_DIRECTORY,
            default="huggingface in ENGINE_PROVISIONER_CACHE_DIR",
            addition=True,
        ),
    ] = None
    hf_hub_cache: Annotated[
        Path | None,
        Var(
            "HF_HUB_CACHE",
            "Directory with the cache of the Hugging Face hub.",
            example="/srv/huggingface/hub",
            allowed=A_DIRECTORY,
            default="hub in HF_HOME",
            addition=True,
        ),
    ] = None


class SourceSettings(FetchSettings, HubSettings):
    """The settings of all model sources."""

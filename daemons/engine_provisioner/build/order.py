"""What to build: a source and the configuration of the build, as the pools file has them."""

import hashlib
import json
from dataclasses import asdict, dataclass

from engine_provisioner.build.recipe import Recipe


@dataclass(frozen=True)
class SourceOrder:
    """A source and how to build it. Either `repo` or `archive` is a URL; `gpus` are the GPUs that the engine is for."""

    repo: str | None
    archive: str | None
    checksum: str | None
    ref: str | None
    submodules: bool
    cmake_flags: tuple[str, ...]
    generator: str | None
    build_cache: str | None
    gpus: tuple[int, ...]

    @property
    def url(self) -> str:
        """The URL of the repository or archive."""
        return self.repo or self.archive or ""

    @property
    def configuration(self) -> str:
        """Identify everything here, to find the engine that was last built for it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]

    def key(self, recipe: Recipe, identity: str) -> str:
        """Identify the engine that `recipe` makes from the commit or archive `identity`."""
        return recipe.key(f"{identity}+submodules" if self.submodules else identity)

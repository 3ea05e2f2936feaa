"""A fetcher and an acquirer with a cache directory of their own."""

from collections.abc import Mapping
from pathlib import Path

from engine_provisioner.acquirer import Acquirer, CountBytes
from engine_provisioner.fetch.bandwidth import Bandwidth
from engine_provisioner.settings import ProvisionerSettings
from engine_provisioner.sources.model_fetcher import ModelFetcher
from engine_provisioner.sources.model_records import ModelKeeper, NoKeeper
from engine_provisioner.sources.source import SourceContext


def context(cache_dir: Path, environ: Mapping[str, str] | None = None) -> SourceContext:
    """Return a context with settings from `environ`."""
    return SourceContext(cache_dir, ProvisionerSettings.load(environ or {}), home=cache_dir / "home")


def fetcher(
    cache_dir: Path, environ: Mapping[str, str] | None = None, cache: ModelKeeper | None = None
) -> ModelFetcher:
    """Return a fetcher that stores models in `cache_dir`."""
    return ModelFetcher(context(cache_dir, environ), Bandwidth(), cache or NoKeeper())


def acquirer(cache_dir: Path, count_bytes: CountBytes = lambda _pool_id, _count: None) -> Acquirer:
    """Return an acquirer that stores everything in `cache_dir`."""
    return Acquirer(fetcher(cache_dir), count_bytes)

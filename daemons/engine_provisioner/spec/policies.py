"""What is wrong with a pool of the pools file though each of its keys is right by itself."""

from collections.abc import Iterator

from engine_provisioner.spec import workloads
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.provisioning_spec import PIP, Binary, External, Package, Source, plain_http_is_local

Finding = tuple[tuple[str, ...], str]


def wrong(pool: Pool) -> Iterator[Finding]:
    """(key below the pool, what is wrong and how to mend it) for each contradiction in `pool`."""
    yield from _mode(pool)
    yield from ((("workloads",), problem) for problem in workloads.wrong(pool))
    if pool.model is None and not isinstance(pool.provisioning, External):
        yield ("model",), "is missing and required in this mode"
    if pool.model and not plain_http_is_local(pool.model.ref):
        yield ("model",), "plain http is allowed from this machine only; use https://"
    if pool.quant and pool.model and not pool.model.ref.startswith("hf:"):
        yield ("quant",), "chooses among the files of an hf: repository; this model names its file itself"
    if pool.tensor_split and len(pool.tensor_split) != len(pool.devices or ()):
        yield ("tensor_split",), "needs one number for each of `devices`"


def _mode(pool: Pool) -> Iterator[Finding]:
    how = pool.provisioning
    if isinstance(how, Binary) and not how.allow_binary_downloads:
        yield (
            ("provisioning",),
            "mode binary runs a program from elsewhere; say allow_binary_downloads = true to allow it",
        )
    if isinstance(how, Package):
        if not how.allow_package_installs:
            yield (
                ("provisioning",),
                "mode package uses what a package manager installs; say allow_package_installs = true to allow it",
            )
        if how.version is not None and not how.name.startswith(PIP):
            yield ("provisioning", "version"), "cannot be chosen: the distribution's own version is used"
        if how.name.startswith(PIP) and how.version is None:
            yield ("provisioning",), 'version is missing and required with pip:, as in version = "2026.10.11549"'
    if isinstance(how, Source) and (how.repo is None) == (how.archive is None):
        yield ("provisioning",), "mode source needs either repo or archive"

"""The model sources, in the order in which messages list them. A new source is added here."""

from engine_provisioner.sources import file, hf, https, oci, s3
from engine_provisioner.sources.source import Source

SOURCES: list[Source] = [file.SOURCE, https.SOURCE, hf.SOURCE, s3.SOURCE, oci.SOURCE]


def source_of(ref: str) -> Source:
    """Return the source of a reference. Raises ValueError, with a text that follows the name of the key."""
    for source in SOURCES:
        if ref.startswith(source.prefixes):
            return source
    *others, last = (source.example for source in SOURCES)
    raise ValueError(f"must begin with {', '.join(others)} or {last}")


def check_reference(ref: str) -> str:
    """Return `ref`. Raises ValueError, with a text that follows the name of the key, if it is malformed."""
    source_of(ref).check(ref)
    return ref

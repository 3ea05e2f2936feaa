"""References to the hub are parsed strictly, and paths that leave the cache are refused."""

import pytest

from engine_provisioner.sources.hf_cache import hub_files
from engine_provisioner.sources.hf_reference import HubReference, parse


@pytest.mark.parametrize(
    ("ref", "parsed"),
    [
        ("hf:a/b", HubReference("a/b", None, None, "main")),
        ("hf:a/b:UD-Q4_K_XL", HubReference("a/b", "UD-Q4_K_XL", None, "main")),
        ("hf:a/b/c/d.gguf@refs/pr/1", HubReference("a/b", None, "c/d.gguf", "refs/pr/1")),
        ("hf:a/b.c_d:Q8_0@v1.0", HubReference("a/b.c_d", "Q8_0", None, "v1.0")),
    ],
)
def test_reference_is_parsed(ref: str, parsed: HubReference) -> None:
    assert parse(ref) == parsed


@pytest.mark.parametrize(
    "ref",
    [
        "hf:",
        "hf:a",
        "hf:a/b/c",
        "hf:a/b/../c.gguf",
        "hf:a/b//c.gguf",
        "hf:../b",
        "hf:a/b@../x",
        "hf:a/b:Q4/x.gguf",
        "hf:a/b@",
    ],
)
def test_malformed_reference_is_refused(ref: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse(ref)


def test_server_cannot_name_files_outside_the_cache() -> None:
    oid = "0" * 40
    names = ["../x.gguf", "/etc/passwd", "a/../../x", "a//b", "ok.gguf", "a\nb"]
    assert [file.path for file in hub_files((name, 1, oid, None) for name in names)] == ["ok.gguf"]
    assert hub_files([("m.gguf", 1, "../../x", None), ("m.gguf", "1", oid, None)]) == []

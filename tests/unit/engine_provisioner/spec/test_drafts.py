"""A pool is drafted from a reference: a valid file, the same name for the same model, an engine that is there."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.spec.drafts import XLLAMACPP, make_draft, pool_name
from engine_provisioner.spec.pools_file import PoolsFileError, parse
from engine_provisioner.spec.toml_text import pool_text
from llama_orch.contracts.pool_files import PoolDraft

DIRECTORY = Path("/etc/llama-orch/pools.d")
SERVER = "/usr/bin/llama-server"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    TEXT | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), VALUES, max_size=5))
def test_text_reads_back_as_it_was(keys: dict[str, object]) -> None:
    assert tomllib.loads(pool_text(keys))["pools"] == [keys]


def test_keys_are_quoted_only_where_they_must_be() -> None:
    text = pool_text({"id": "a", "provisioning": {"mode": "package"}, "env": {"a b": "1"}})
    assert 'mode = "package"\n' in text
    assert '"a b" = "1"\n' in text


@given(TEXT)
def test_derived_name_is_valid(words: str) -> None:
    ref = f"https://host/{words}"
    name = pool_name(ref, [])
    text = pool_text({"id": name, "provisioning": {"mode": "external", "url": "http://127.0.0.1:1"}})
    assert parse(text.encode(), Path("x.toml"))[0].id == name
    assert pool_name(ref, [name]).startswith(f"{name}-")


def test_names_are_those_of_the_files() -> None:
    for ref in ("file:/srv/Qwen3_8B.Q4.gguf", "https://user:secret@h/a/Qwen3_8B.Q4.gguf?token=x", "hf:org/Qwen3-8B-Q4"):
        assert pool_name(ref, []) == "qwen3-8b-q4"


def test_same_model_gives_the_same_pool() -> None:
    request = PoolDraft(model="file:/srv/a.gguf", keys={"preload": False})
    first = make_draft(request, [], DIRECTORY, SERVER)
    assert first.content is not None
    files = [(first.path, first.content.encode())]
    again = make_draft(request, files, DIRECTORY, SERVER)
    assert (first.path, again.pool_id, again.path, again.content) == (DIRECTORY / "a.toml", "a", first.path, None)
    named = PoolDraft(pool_id="a", model="file:/srv/a.gguf", keys={"preload": False})
    assert make_draft(named, files, DIRECTORY, SERVER).content is None
    other = make_draft(PoolDraft(model="file:/other/a.gguf"), files, DIRECTORY, SERVER)
    assert other.pool_id.startswith("a-")


def test_engine_is_that_of_another_pool_or_what_is_there() -> None:
    request = PoolDraft(pool_id="a", model="file:/srv/a.gguf")
    assert make_draft(request, [], DIRECTORY, SERVER).note == f"engine: {SERVER}"
    assert XLLAMACPP in make_draft(request, [], DIRECTORY, None).note
    how = f'{{ mode = "package", name = "pip:xllamacpp", version = "{XLLAMACPP}", allow_package_installs = true }}'
    files = [(Path("/p.toml"), f'[[pools]]\nid = "p"\nmodel = "file:/m"\nprovisioning = {how}\n'.encode())]
    draft = make_draft(request, files, DIRECTORY, SERVER)
    assert draft.note == "engine as in pool p"
    assert "pip:xllamacpp" in (draft.content or "")
    assert make_draft(request.model_copy(update={"engine": "package"}), files, DIRECTORY, None).note.endswith(
        "llama.cpp"
    )


@pytest.mark.parametrize(
    ("keys", "problem"),
    [({"slots": 0}, "a.toml:5: pools[0].slots: 0 is out of range"), ({"colour": "x"}, "a.toml:5: pools[0].colour")],
)
def test_invalid_pool_is_refused_with_its_line(keys: dict[str, object], problem: str) -> None:
    with pytest.raises(PoolsFileError) as refused:
        make_draft(PoolDraft(pool_id="a", model="file:/srv/a.gguf", keys=keys), [], DIRECTORY, SERVER)
    assert problem in str(refused.value)


def test_keys_cannot_rename_the_pool() -> None:
    draft = make_draft(PoolDraft(pool_id="a", model="file:/m.gguf", keys={"id": "b"}), [], DIRECTORY, SERVER)
    assert 'id = "a"' in (draft.content or "")

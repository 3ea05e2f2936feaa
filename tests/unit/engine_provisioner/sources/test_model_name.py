"""Model names have no secrets and a bounded length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.sources.model_name import LIMIT, model_name


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("file:/srv/a?b#c.gguf", "file:/srv/a?b#c.gguf"),
        ("https://user:secret@h.example/m.gguf?X-Amz-Signature=secret#secret", "https://h.example/m.gguf"),
        ("hf:org/repo/m.gguf", "hf:org/repo/m.gguf"),
    ],
)
def test_credentials_and_query_are_removed(ref: str, name: str) -> None:
    assert model_name(ref) == name


@given(st.text(alphabet="ab/", max_size=600), st.text(alphabet="ab/", max_size=600))
def test_long_names_are_cut_and_stay_distinct(one: str, other: str) -> None:
    names = model_name("file:/" + one), model_name("file:/" + other)
    assert all(0 < len(name) <= LIMIT for name in names)
    assert (names[0] == names[1]) == (one == other)

"""The line of each key is found in all TOML syntaxes."""

from hypothesis import given
from hypothesis import strategies as st

from llama_orch.files.toml_lines import locate


def test_tables_and_arrays() -> None:
    lines = locate('[[p]]\nid = 1\n\n[p.m]\na.b = { c = 1, d = [\n 1,\n 2] }\n[[p]]\nid = """x\ny"""\nz = 1\n')
    assert lines["p", 0, "id"] == 2
    assert lines["p", 0, "m", "a", "b", "c"] == 5
    assert lines["p", 0, "m", "a", "b", "d", 1] == 7
    assert lines["p", 1, "id"] == 9
    assert lines["p", 1, "z"] == 11


def test_quoted_keys_and_comments() -> None:
    lines = locate('# [x]\n"a.b" = "]#" # }\n\'c\' = [ # [\n"#",\n]\nd = 1\n')
    assert (lines["a.b",], lines["c",], lines["c", 0], lines["d",]) == (2, 3, 4, 6)


@given(st.lists(st.sampled_from(['k = "#[{"', "k = [1,\n2]", "# c", "", 'k = """\n\n"""', "k = {a = 1}"]), max_size=20))
def test_key_after_any_syntax_has_its_line(parts: list[str]) -> None:
    numbered = [part.replace("k =", f"k{index} =") for index, part in enumerate(parts)]
    text = "\n".join([*numbered, "last = 1"])
    assert locate(text)["last",] == text.count("\n") + 1


@given(st.text(max_size=100))
def test_any_text_gives_positive_lines(text: str) -> None:
    assert all(line >= 1 for line in locate(text).values())

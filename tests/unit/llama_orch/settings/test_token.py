"""The token: three sources in order, validation, and display as a fingerprint only."""

import hashlib
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llama_orch.settings import ConfigurationError
from queen_rbee.settings import QueenSettings

VARIABLE, FILE, CREDENTIAL = "variable-0123456789", "file-0123456789abc", "credential-0123456789"


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "api-token").write_text(f"{CREDENTIAL}\n")
    (tmp_path / "token").write_text(f"{FILE}\n")
    return {
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "LLORCH_API_TOKEN_FILE": str(tmp_path / "token"),
        "LLORCH_API_TOKEN": VARIABLE,
    }


def load(environ: dict[str, str]) -> tuple[str | None, str]:
    """Return the effective token and its source."""
    settings = QueenSettings.load(environ)
    source = next(source for env, _value, source in settings.effective(environ) if env == "LLORCH_API_TOKEN")
    return settings.token.get_secret_value() if settings.token else None, source


def test_credential_then_file_then_variable(sources: dict[str, str]) -> None:
    assert load(sources) == (CREDENTIAL, "credential")
    Path(sources["CREDENTIALS_DIRECTORY"], "api-token").write_text("")
    assert load(sources) == (FILE, "file")
    del sources["LLORCH_API_TOKEN_FILE"]
    assert load(sources) == (VARIABLE, "environment")
    del sources["LLORCH_API_TOKEN"]
    assert load(sources) == (None, "default")


def test_second_token_has_the_same_sources(sources: dict[str, str], tmp_path: Path) -> None:
    second = {name: f"second-{name}-0123456789" for name in ("credential", "file", "variable")}
    (tmp_path / "api-token-second").write_text(f"{second['credential']}\n")
    (tmp_path / "token-second").write_text(f"{second['file']}\n")
    sources["LLORCH_API_TOKEN_SECOND_FILE"] = str(tmp_path / "token-second")
    sources["LLORCH_API_TOKEN_SECOND"] = second["variable"]
    assert (load(sources)[0], second_token(sources)) == (CREDENTIAL, second["credential"])
    (tmp_path / "api-token-second").write_text("\n")
    assert second_token(sources) == second["file"]
    del sources["LLORCH_API_TOKEN_SECOND_FILE"]
    assert second_token(sources) == second["variable"]
    del sources["LLORCH_API_TOKEN_SECOND"]
    assert (load(sources)[0], second_token(sources)) == (CREDENTIAL, None)


def second_token(environ: dict[str, str]) -> str | None:
    second = QueenSettings.load(environ).second_token
    return second.get_secret_value() if second else None


def test_invalid_second_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for environ, variable in (
        ({"LLORCH_API_TOKEN_SECOND": "too-short"}, "LLORCH_API_TOKEN_SECOND"),
        ({"LLORCH_API_TOKEN_SECOND_FILE": str(tmp_path / "empty")}, "LLORCH_API_TOKEN_SECOND_FILE"),
        ({"LLORCH_API_TOKEN_SECOND_FILE": str(tmp_path / "none")}, "LLORCH_API_TOKEN_SECOND_FILE"),
    ):
        error = load_error({"LLORCH_API_TOKEN": VARIABLE} | environ)
        assert [problem.variable for problem in error.problems] == [variable]
        assert "too-short" not in str(error)


def test_invalid_first_token_is_the_only_problem(tmp_path: Path) -> None:
    environ = {"LLORCH_API_TOKEN_FILE": str(tmp_path / "none"), "LLORCH_API_TOKEN_SECOND": VARIABLE}
    assert [problem.variable for problem in load_error(environ).problems] == ["LLORCH_API_TOKEN_FILE"]


def load_error(environ: dict[str, str]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        QueenSettings.load(environ)
    return caught.value


def test_unreadable_file_does_not_fall_back(tmp_path: Path) -> None:
    environ = {"LLORCH_API_TOKEN_FILE": str(tmp_path / "none"), "LLORCH_API_TOKEN": VARIABLE}
    (problem,) = load_error(environ).problems
    assert problem.variable == "LLORCH_API_TOKEN_FILE"
    assert "No such file" in problem.problem
    assert str(tmp_path / "none") in problem.problem


def test_empty_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    (problem,) = load_error({"LLORCH_API_TOKEN_FILE": str(tmp_path / "token")}).problems
    assert (problem.variable, problem.problem) == ("LLORCH_API_TOKEN_FILE", "is empty")


def test_binary_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe" * 20)
    (problem,) = load_error({"LLORCH_API_TOKEN_FILE": str(tmp_path / "token")}).problems
    assert problem.variable == "LLORCH_API_TOKEN_FILE"


def test_problem_names_file_or_credential(tmp_path: Path) -> None:
    file = tmp_path / "api-token"
    file.write_text(f"{VARIABLE}\n{VARIABLE}\n")
    (problem,) = load_error({"LLORCH_API_TOKEN_FILE": str(file), "ORCHESTRATORD_CLOUD_PROFILE": "1"}).problems
    assert (problem.variable, problem.value) == ("LLORCH_API_TOKEN_FILE", str(file))
    assert "is not a valid token" in problem.problem
    assert "on one line" in problem.hint
    (problem,) = load_error({"CREDENTIALS_DIRECTORY": str(tmp_path), "ORCHESTRATORD_CLOUD_PROFILE": "1"}).problems
    assert str(problem).startswith("credential api-token: ")


def test_unexpanded_command_has_a_hint() -> None:
    (problem,) = load_error({"LLORCH_API_TOKEN": "$(openssl rand -hex 32)"}).problems
    assert "does not expand commands or variables" in problem.hint


def test_invalid_token_is_not_also_missing() -> None:
    environ = {"ORCHESTRATORD_CLOUD_PROFILE": "1", "LLORCH_API_TOKEN": "too-short"}
    assert [problem.variable for problem in load_error(environ).problems] == ["LLORCH_API_TOKEN"]


@given(st.text(min_size=1).filter(lambda text: "\0" not in text and text.strip() == text))
def test_token_is_16_to_512_printable_ascii(text: str) -> None:
    usable = 16 <= len(text) <= 512 and all("!" <= char <= "~" for char in text)
    try:
        assert load({"LLORCH_API_TOKEN": text})[0] == text
        assert usable
    except ConfigurationError:
        assert not usable


def test_valid_token_is_shown_as_fingerprint_only() -> None:
    environ = {"LLORCH_API_TOKEN": VARIABLE}
    settings = QueenSettings.load(environ)
    effective = "\n".join(map(str, settings.effective(environ)))
    shown = [repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump()), effective]
    shown += [f"{settings.token}", repr(settings.token), f"{settings.token!r:>40}"]
    assert not any(VARIABLE in text for text in shown)
    fingerprint = hashlib.sha256(VARIABLE.encode()).hexdigest()[:6]
    assert f"token_fp6={fingerprint}" in effective


def test_invalid_token_is_not_shown() -> None:
    wrong = "short-secret"
    error = load_error({"LLORCH_API_TOKEN": wrong})
    chain = [error, error.__context__, error.__cause__]
    texts = [f"{item!r} {item}" for item in chain] + [str(problem) for problem in error.problems]
    assert not any(wrong in text for text in texts)
    with pytest.raises(ValidationError) as caught:
        QueenSettings.model_validate({"token": wrong})
    assert wrong not in str(caught.value)


def test_equal_tokens_compare_equal_after_copy() -> None:
    first = QueenSettings.load({"LLORCH_API_TOKEN": VARIABLE})
    assert first == pickle.loads(pickle.dumps(first))

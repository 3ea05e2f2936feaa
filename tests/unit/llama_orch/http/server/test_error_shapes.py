"""Error formats, also as parsed by OpenAI's and Anthropic's packages."""

import json

import anthropic
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem
from llama_orch.http.server.error_shapes import ErrorAnswer, ErrorFormat, anthropic_error, error_answer, shape_of

FULL = ErrorBody(
    code=ErrorCode.ADMISSION_REJECT,
    message="the queue is full",
    hint="Come back.",
    retriable=True,
    retry_after_ms=1500,
    policy_label="reject-new",
)
WRONG = ErrorBody(
    code=ErrorCode.INVALID_PARAMS,
    message="model: is missing",
    fields=[FieldProblem(field="model", problem="is missing")],
)
MESSAGES, CHAT, TASKS = "/v1/messages", "/v1/chat/completions", "/v2/tasks"


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        (MESSAGES, "anthropic"),
        ("/v1/messages/count_tokens", "anthropic"),
        ("/v1/messagesx", "openai"),
        (CHAT, "openai"),
        ("/v1/models/a/b", "openai"),
        ("/v1", "own"),
        (TASKS, "own"),
        ("/v1x/messages", "own"),
        ("/", "own"),
    ],
)
def test_path_determines_shape(path: str, shape: ErrorFormat):
    assert shape_of(path) == shape


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/models", "anthropic"),
        ("/v1/models/a/b", "anthropic"),
        ("/v1/modelsx", "openai"),
        (CHAT, "openai"),
        (MESSAGES, "anthropic"),
        ("/v2/models", "own"),
    ],
)
def test_header_determines_shape_on_shared_paths(path: str, shape: ErrorFormat):
    assert shape_of(path, anthropic=True) == shape
    assert error_answer(ApiError(400, WRONG), path, "c", anthropic=True).body.get("request_id") == (
        "c" if shape == "anthropic" else None
    )


def test_own_shape_has_the_correlation_id():
    headers = (("retry-after", "2"),)
    found = error_answer(ApiError(429, FULL, headers), TASKS, "c")
    assert found == ErrorAnswer(
        429,
        {
            "code": "ADMISSION_REJECT",
            "message": "the queue is full",
            "hint": "Come back.",
            "retriable": True,
            "retry_after_ms": 1500,
            "policy_label": "reject-new",
            "correlation_id": "c",
        },
        headers,
    )


def test_anthropic_shape_matches_documentation():
    found = error_answer(ApiError(429, FULL, (("retry-after", "2"),)), MESSAGES, "c")
    assert found.body == {
        "type": "error",
        "error": {
            "type": "rate_limit_error",
            "message": "the queue is full. Come back.",
            "details": {"error_code": "ADMISSION_REJECT"},
        },
        "request_id": "c",
    }
    assert dict(found.headers) == {"retry-after": "2", "x-should-retry": "true", "retry-after-ms": "1500"}


def test_openai_shape_matches_documentation():
    found = error_answer(ApiError(400, WRONG), CHAT, "c")
    assert found.body == {
        "error": {
            "message": "model: is missing",
            "type": "invalid_request_error",
            "param": "model",
            "code": "INVALID_PARAMS",
        }
    }
    assert dict(found.headers) == {"x-should-retry": "false"}


def test_openai_code_is_reason_if_there_is_one():
    error = ApiError(400, WRONG.model_copy(update={"fields": None, "reason": "context_length_exceeded"}))
    told = error_answer(error, CHAT, "c")
    seen = openai.OpenAI(api_key="k")._make_status_error_from_response(response(told))
    assert isinstance(seen, openai.BadRequestError)
    assert seen.code == "context_length_exceeded"
    own = error_answer(error, TASKS, "c").body
    assert (own["code"], own["reason"]) == ("INVALID_PARAMS", "context_length_exceeded")


def response(told: ErrorAnswer) -> httpx2.Response:
    return httpx2.Response(
        told.status, json=told.body, headers=dict(told.headers), request=httpx2.Request("POST", "http://localhost")
    )


@pytest.mark.parametrize(
    ("status", "retriable", "kind", "word"),
    [
        (400, False, anthropic.BadRequestError, "invalid_request_error"),
        (401, False, anthropic.AuthenticationError, "authentication_error"),
        (403, False, anthropic.PermissionDeniedError, "permission_error"),
        (404, False, anthropic.NotFoundError, "not_found_error"),
        (405, False, anthropic.APIStatusError, "invalid_request_error"),
        (408, False, anthropic.APIStatusError, "timeout_error"),
        (409, False, anthropic.ConflictError, "conflict_error"),
        (413, False, anthropic.APIStatusError, "request_too_large"),
        (429, True, anthropic.RateLimitError, "rate_limit_error"),
        (500, False, anthropic.InternalServerError, "api_error"),
        (502, True, anthropic.InternalServerError, "api_error"),
        (503, False, anthropic.InternalServerError, "api_error"),
        (503, True, anthropic.InternalServerError, "overloaded_error"),
        (504, True, anthropic.InternalServerError, "timeout_error"),
    ],
)
def test_anthropic_package_raises_matching_error(status: int, retriable: bool, kind: type[Exception], word: str):
    told = error_answer(ApiError(status, FULL.model_copy(update={"retriable": retriable})), MESSAGES, "c")
    client = anthropic.Anthropic(api_key="k")
    error = client._make_status_error_from_response(response(told))
    assert isinstance(error, kind)
    assert (error.type, error.error_code) == (word, "ADMISSION_REJECT")
    assert (error.status_code == 529) == (word == "overloaded_error")
    assert client._should_retry(error.response) is retriable


@pytest.mark.parametrize(
    ("status", "kind", "word", "code"),
    [
        (400, openai.BadRequestError, "invalid_request_error", "INVALID_PARAMS"),
        (401, openai.AuthenticationError, "authentication_error", "INVALID_PARAMS"),
        (403, openai.PermissionDeniedError, "permission_error", "INVALID_PARAMS"),
        (404, openai.NotFoundError, "invalid_request_error", "model_not_found"),
        (429, openai.RateLimitError, "rate_limit_error", "INVALID_PARAMS"),
        (503, openai.InternalServerError, "server_error", "INVALID_PARAMS"),
    ],
)
def test_openai_package_raises_matching_error(status: int, kind: type[Exception], word: str, code: str):
    told = error_answer(ApiError(status, WRONG), CHAT, "c")
    error = openai.OpenAI(api_key="k")._make_status_error_from_response(response(told))
    assert isinstance(error, kind)
    assert (error.type, error.code, error.param) == (word, code, "model")


@pytest.mark.parametrize("path", [MESSAGES, CHAT])
def test_both_packages_honour_retry_after_ms(path: str):
    told = error_answer(ApiError(429, FULL, (("retry-after", "2"),)), path, "c")
    for client in (anthropic.Anthropic(api_key="k"), openai.OpenAI(api_key="k")):
        assert client._parse_retry_after_header(response(told).headers) == 1.5


def test_stream_error_event_has_the_same_object():
    error = ApiError(503, FULL)
    assert anthropic_error(error, "c") == error_answer(error, MESSAGES, "c").body


@given(
    st.sampled_from([MESSAGES, CHAT, TASKS]),
    st.integers(400, 599),
    st.sampled_from(ErrorCode),
    st.text(),
    st.booleans(),
)
def test_any_error_can_be_formatted(path: str, status: int, code: ErrorCode, message: str, retriable: bool):
    error = ApiError(status, ErrorBody(code=code, message=message, retriable=retriable))
    told = error_answer(error, path, None)
    json.dumps(told.body)
    assert 400 <= told.status <= 599

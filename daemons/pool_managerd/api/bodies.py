"""Bodies of requests: from bytes to a model of the contracts, or to a 400 that names each wrong field."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem

Model = TypeVar("Model", bound=BaseModel)


def parsed(model: type[Model], body: bytes) -> Model:
    """`body` as `model`; no text is taken for a number. Raises ApiError 400."""
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise invalid([_problem(item["loc"], item["msg"]) for item in found]) from error


def invalid(problems: list[FieldProblem]) -> ApiError:
    """400 for what is wrong with each field."""
    message = "; ".join(f"{problem.field}: {problem.problem}" for problem in problems)
    return ApiError(400, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, fields=problems))


def _problem(location: tuple[int | str, ...], message: str) -> FieldProblem:
    words = message.replace("Extra inputs are not permitted", "is not a known field").replace("Input should", "must")
    return FieldProblem(field=".".join(map(str, location)) or "body", problem=words)

"""Messages for validation errors in the pools file: the problem with the value, and what is allowed."""

from collections.abc import Iterator
from typing import get_args

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from engine_provisioner.modes.mode import ProvisioningMode
from engine_provisioner.modes.registry import mode_names
from engine_provisioner.spec.pool_spec import PoolsFile
from llama_orch.contracts.validation import InvalidField, Location

TYPES = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a table",
    "model": "a table",
}
ID_PATTERN = "consist of lower-case letters, digits and -, begin with a letter or digit, and have at most 63 characters"
PATTERNS = {
    "id": ID_PATTERN,
    "group": ID_PATTERN,
    "[key]": ID_PATTERN,
    "checksum": "be sha256: and 64 lower-case hex digits",
    "version": "consist of letters, digits and . + ! -, begin with a digit, and have at most 64 characters",
    "quant": "consist of letters, digits and _, and have at most 32 characters",
}


def _tables(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Yield `model` and each table below it, with its location in pydantic's errors without list indices."""
    yield path, model
    for name, field in model.model_fields.items():
        for nested in _models_in(field.annotation):
            tag = (nested.mode_name(),) if issubclass(nested, ProvisioningMode) else ()
            yield from _tables(nested, (*path, name, *tag))


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


TABLES = dict(_tables(PoolsFile))


def message_for(found: InvalidField) -> str:
    """Return the message for a field of the pools file, which is validated with its values."""
    kind, location, context = found.kind, found.location, found.context
    name = str(location[-1]) if location else ""
    if kind == "extra_forbidden":
        table = _table_at(location)
        return f"is not a key of this table; allowed: {', '.join(table.model_fields) if table else 'none'}"
    if kind == "missing":
        return "is missing; this table requires it"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return f"needs a mode; allowed: {', '.join(mode_names())}"
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"{found.value} is out of range ({_range_at(location)})"
    if kind == "literal_error":
        return f"invalid value {found.value!r} (allowed: {str(context['expected']).replace(chr(39), '')})"
    if kind == "string_pattern_mismatch":
        return f"must {_pattern_text(name, str(context['pattern']))}"
    if kind == "string_too_short":
        return "must not be empty"
    return _size_or_type_message(found, name)


def _size_or_type_message(found: InvalidField, name: str) -> str:
    kind, context = found.kind, found.context
    if kind == "string_too_long":
        return f"is longer than {context['max_length']} characters"
    if kind == "too_short":
        return f"is empty; at least {context['min_length']} element is required"
    if kind == "too_long":
        return f"has {context['actual_length']} elements; at most {context['max_length']} allowed"
    if name == "model" and kind == "model_type":
        return "must be a reference such as file:/srv/models/model.gguf, or a table with ref"
    if kind.endswith("_type") and kind.removesuffix("_type") in TYPES:
        return f"must be {TYPES[kind.removesuffix('_type')]}"
    return found.text


def _table_at(location: Location) -> type[BaseModel] | None:
    keys = [part for part in location[:-1] if isinstance(part, str)]
    if keys[:1] == ["groups"]:
        del keys[1:2]  # the group's name
    return TABLES.get(tuple(keys))


def _pattern_text(name: str, pattern: str) -> str:
    if name in PATTERNS:
        return PATTERNS[name]
    return "be an absolute path" if pattern.startswith("^/") else "be one line without control characters"


def _range_at(location: Location) -> str:
    """Return the range of the number at `location`, as in `1 to 256`."""
    keys = location
    while keys and not isinstance(keys[-1], str):  # an element of a list
        keys = keys[:-1]
    table = _table_at(keys)
    constraints = list(_constraints(table.model_fields[str(keys[-1])])) if table and keys else []
    low = next((each.ge for each in constraints if isinstance(each, Ge)), None)
    high = next((each.le for each in constraints if isinstance(each, Le)), None)
    return f"{low} to {high}" if high is not None else f"at least {low}"


def _constraints(field: FieldInfo) -> Iterator[object]:
    yield from field.metadata
    yield from _nested_constraints(field.annotation)


def _nested_constraints(annotation: object) -> Iterator[object]:
    for each in getattr(annotation, "__metadata__", ()):
        yield from each.metadata if isinstance(each, FieldInfo) else [each]
    for argument in get_args(annotation):
        yield from _nested_constraints(argument)

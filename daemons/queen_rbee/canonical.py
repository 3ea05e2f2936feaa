"""The canonical JSON that artifacts are known by, and its SHA-256. Pure.

An artifact's id is the SHA-256, in lower-case hex, of the UTF-8 of this text:

    {"content":…,"kind":"…","parent":…,"tags":[…]}

- all four members, an absent parent as null, absent tags as [], absent content as null;
- the members of each object in the order of their names' code points; of members with one name the last counts;
- no blanks between tokens; tags and arrays in the order given;
- in strings only `"`, `\\` and U+0000 to U+001F are escaped: \\" \\\\ \\b \\f \\n \\r \\t, else \\u00xx in lower case;
- a number without fraction and exponent is an integer and written in full (-0 is 0); any other is written as Python's
  repr() of the nearest IEEE 754 double: the fewest digits that give it back, with `.0` or an exponent (1.0, 0.1, 1e+16,
  1e-07, -0.0), so that 1 and 1.0 are two documents.

In Python: json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).
"""

import hashlib
import json

from pydantic import JsonValue

from llama_orch.contracts.artifacts import NewArtifact

_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical(value: JsonValue) -> str:
    """`value` as above. Raises ValueError for infinities and NaN, which JSON has not."""
    return _ENCODE(value)


def whole(new: NewArtifact, content: str) -> bytes:
    """The document that the id of `new` is made of; `content` is its content, canonical already.

    Raises ValueError for lone surrogates, which UTF-8 has not.
    """
    kind, parent, tags = _ENCODE(new.kind), _ENCODE(new.parent), _ENCODE(new.tags)
    return f'{{"content":{content},"kind":{kind},"parent":{parent},"tags":{tags}}}'.encode()


def artifact_id(document: bytes) -> str:
    """The id of a canonical document."""
    return hashlib.sha256(document).hexdigest()

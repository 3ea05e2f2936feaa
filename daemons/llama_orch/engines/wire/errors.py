"""What engines answer with a server error though the request is at fault: one table for each kind of engine.

Such a request fails on every replica, however often it is tried, so its client gets 400 and nothing counts against the
replica. Patterns are searched in the engine's message; those that begin with `^` would otherwise be found in what the
message quotes of the request.
"""

import re
from dataclasses import replace

from llama_orch.contracts.errors import Reason
from llama_orch.engines.wire.adapter import Complaint, Complaints, Refused


def _says(words: str, reason: Reason | None = None) -> Complaint:
    return Complaint(re.compile(words, re.DOTALL), reason)


LLAMACPP: Complaints = (
    # measured with build 11669; the words are in tools/server/server-context.cpp and server-common.cpp
    _says(r"^input \(\d+ tokens\) is too large to process", "context_length_exceeded"),
    _says(r"^input is too large to process", "context_length_exceeded"),  # older releases
    _says(r"^Context size has been exceeded", "context_length_exceeded"),  # slots that share one cache
    _says(r"^(image|audio|video) input is not supported"),
    _says(r"^Failed to (parse (tools|messages|grammar)|initialize samplers|download image|load image)"),
    _says(r"^Failed to (tokenize prompt|process image|load image or audio file)"),
    _says(r"^Invalid (url|uri|tool_choice|diff)|^url must be base64 encoded"),
    _says(r"^Cannot (use both|use custom grammar|specify grammar|have 2 or more assistant|continue an assistant) "),
    _says(r"^Unknown reasoning format|^tools? param requires|^tool_choice param requires"),
    _says(r"^Pooling type '\w+' is not OAI compatible|^Prompt contains invalid tokens|^Input content cannot be empty"),
    _says(r"^\[json\.exception\."),  # a field of a wrong type, in releases before the server validated its fields
    _says(r"Jinja Exception: "),  # what the model's template says of the conversation
)

VLLM: Complaints = (
    # its releases answer these with 500 in one and 400 in another (vllm-project/vllm 13976, 11629, 54017)
    _says(r"maximum context length|longer than the maximum model length", "context_length_exceeded"),
    _says(r"TemplateError|Conversation roles must alternate|jinja2\.exceptions"),
    _says(r"cannot identify image file|UnidentifiedImageError|Incorrect padding"),
    _says(r"At most \d+ (image|audio|video)\S* may be provided"),
    _says(r"is not a multimodal model|does not support (image|audio|video) input"),
    _says(r"not supported by (xgrammar|guidance|outlines)|[Ii]nvalid (grammar|JSON schema|regex)"),
)

TGI: Complaints = (
    # errors of its Python shards come as 424 with these words (text-generation-inference 2282)
    _says(r"`inputs` must have less than|`inputs` tokens \+ `max_new_tokens` must be", "context_length_exceeded"),
    _says(r"Could not translate the instance|[Gg]rammar (compilation|is not valid)|Invalid grammar"),
    _says(r"cannot identify image file|[Tt]emplate error"),
)

TRITON: Complaints = (
    # TensorRT-LLM and the vLLM back end raise these while they run, so that Triton answers 500
    _says(r"exceeds maximum input length|maximum (context|sequence) length|max_seq_len", "context_length_exceeded"),
    _says(r"larger than max_input_len|longer than the maximum model length", "context_length_exceeded"),
    _says(r"unexpected inference input|expected \d+ inputs but got|invalid (datatype|shape)|Expected batch dimension"),
    _says(r"unexpected datatype|failed to parse the request JSON|[Ii]nvalid sampling"),
)


OPENAI_HTTP: Complaints = (*LLAMACPP, *VLLM)
"""Behind OpenAI's API there is often one of these (llama-swap, SGLang, LM Studio)."""


def judged(found: Refused, complaints: Complaints) -> Refused:
    """`found`, as the client's fault where its words are among `complaints`."""
    if found.client_fault or found.busy:
        return found
    known = next((complaint for complaint in complaints if complaint.words.search(found.message)), None)
    return replace(found, client_fault=True, gone=False, reason=known.reason or found.reason) if known else found

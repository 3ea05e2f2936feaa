"""Translation between OpenAI's Responses API and OpenAI's chat completions. Pure.

Imported with the first response: an idle daemon does without its memory.
"""

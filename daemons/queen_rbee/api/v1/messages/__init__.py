"""Translation between Anthropic's Messages API and OpenAI's chat completions. Pure.

Imported with the first message: an idle daemon does without its memory.
"""

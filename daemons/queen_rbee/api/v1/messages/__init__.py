"""Anthropic's Messages API in terms of OpenAI's chat completions: pure translation, there and back.

Imported when the first message is asked for: an idle queen does without.
"""

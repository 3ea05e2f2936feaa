"""OpenAI chats as the other APIs of /v1 translate to and from: turns, chunks and tool calls. Pure.

Imported with the first request to one of those APIs: an idle daemon does without its memory.
"""

"""The OpenAPI document, built from the route declarations.

Imported with the first request for /openapi.json: an idle daemon does without its memory.
"""

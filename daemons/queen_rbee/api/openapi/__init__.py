"""The description of the API, OpenAPI 3.1: a declaration for each operation, and the document that they make up.

Imported when the document is first asked for, never before: an idle queen does without.
"""

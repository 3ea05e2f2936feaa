"""The user's configuration reference, word for word in CONFIGURATION.md, and the declarations held against it."""

"""The user's configuration reference (CONFIGURATION.md, verbatim), and tests that compare the settings with it."""

"""Models of the data that crosses a process boundary: HTTP bodies, handoff files, reports.

Every model is a public interface: fields may be added, but not renamed. Docstrings are descriptions in /openapi.json.
"""

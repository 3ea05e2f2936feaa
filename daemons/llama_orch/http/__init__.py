"""HTTP server and client.

One workaround must run before Quart is imported: Quart and Flask import `click.testing`, a test tool that loads pdb and
readline. That costs every daemon 1.3 MB of memory on Debian 13.
"""

import sys
from types import ModuleType


class _StubModule(ModuleType):
    """A module in which every attribute exists and is `object`."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


sys.modules.setdefault("click.testing", _StubModule("click.testing"))

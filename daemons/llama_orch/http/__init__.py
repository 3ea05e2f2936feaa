"""HTTP on both sides: the server shim, the small exchange of the hot paths, the gate, and the client.

Owns one workaround that must come before Quart is imported: Quart and Flask import `click.testing`, which is for tests
of command lines and brings pdb and readline with it, 1.3 MB of every daemon's memory on Debian 13.
"""

import sys
from types import ModuleType


class _Untested(ModuleType):
    """Stands in for a module of test tools: whatever is asked of it is there and does nothing."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


sys.modules.setdefault("click.testing", _Untested("click.testing"))

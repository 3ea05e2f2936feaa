"""orchctl status."""

import json

from tests.unit.orchctl.commands.test_pools import TABLE, status_script
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import reply, serve


def test_status_shows_version_readiness_tasks_and_pools() -> None:
    with serve(status_script(ready=reply(503, {"ready": False, "reasons": ["no pool is ready"]}))) as queen:
        result = run("status", "--url", queen.url)
        found = json.loads(run("status", "--json", "--url", queen.url).out)
    head = f"queen-rbee 0.1.0 at {queen.url}: not ready (no pool is ready), 507 queued, 2 running\n\n"
    assert (result.status, result.out) == (0, head + TABLE)
    assert found["tasks"] == {"queued": 507, "running": 2}
    assert found["ready"] == {"ready": False, "reasons": ["no pool is ready"]}

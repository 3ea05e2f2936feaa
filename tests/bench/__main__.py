"""make bench: run all benchmarks."""

import sys

from tests.bench import (
    admission,
    cancel,
    cold_request,
    downloads,
    first_minutes,
    first_token,
    fleet,
    intake,
    keys,
    many_streams,
    on_demand,
    overload,
    prefixes,
    store,
    streams,
    traces,
    under_systemd,
)
from tests.system.lab.prerequisites import missing


def main() -> int:
    """Run the benchmarks without root first, then those in booted machines."""
    first_token.main()
    cancel.main()
    admission.main()
    intake.main()
    store.main()
    streams.main()
    many_streams.main()
    overload.main()
    keys.main()
    fleet.main()
    downloads.main()
    traces.main()
    cold_request.main()
    on_demand.main()
    prefixes.main()
    if problems := missing():
        print(f"skipping benchmarks under systemd: {'; '.join(problems)}", file=sys.stderr)
        return 0
    under_systemd.main()
    first_minutes.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())

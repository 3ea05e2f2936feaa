"""make bench: prints every figure."""

import sys

from tests.bench import admission, cancel, first_token, fleet, overload, store, streams, under_systemd
from tests.system.lab.prerequisites import missing


def main() -> int:
    """First what needs no root, then what is measured in booted machines."""
    first_token.main()
    cancel.main()
    admission.main()
    store.main()
    streams.main()
    overload.main()
    fleet.main()
    if lacking := missing():
        print(f"nothing measured under systemd: {'; '.join(lacking)}", file=sys.stderr)
        return 0
    under_systemd.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())

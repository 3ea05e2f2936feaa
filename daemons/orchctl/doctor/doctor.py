"""orchctl doctor: what `check` examines, and this machine: units, sandboxes, drivers, ports, disks, kernel messages."""

import argparse

from orchctl.client import QueenClient
from orchctl.command import CliCommand


async def doctor(options: argparse.Namespace, queen: QueenClient) -> None:
    """Print the findings. Raises CommandError if one is a problem."""
    from orchctl.check.check import print_report
    from orchctl.doctor.report import diagnose

    print_report(options, queen.url, await diagnose(queen))


DOCTOR = CliCommand(
    "doctor",
    "check the same, and this machine: units, models, engines, drivers, ports, disks, kernel messages",
    doctor,
)

"""Events of machines that are suspended and woken."""

import logging

from llama_orch.telemetry.events.event import Event

NODE_SLEEPING = Event(
    "node_sleeping",
    "536079b34bb74cf59f1e446b7eaaab45",
    "queen_rbee.fleet",
    logging.INFO,
    "node {node_id} is idle and is suspended; its pools stay known, and a task that needs one wakes it",
    "No action is required. orchctl nodes wake @NODE_ID@ wakes it by hand. To keep it awake, unset\n"
    "POOL_MANAGERD_SUSPEND_AFTER_SECS there.",
)
NODE_WAKING = Event(
    "node_waking",
    "a834126543d445c0b7fec0fc3041766e",
    "queen_rbee.waking",
    logging.INFO,
    "node {node_id} is woken: {reason}",
    "No action is required: magic packets are sent until it sends a heartbeat. node_woken or node_did_not_wake\n"
    "follows.",
)
NODE_WOKEN = Event(
    "node_woken",
    "f25322d4dd34454d98c04de061055f6b",
    "queen_rbee.fleet",
    logging.INFO,
    "node {node_id} is awake after {slept_s} s and gets tasks",
    "No action is required.",
)
NODE_DID_NOT_WAKE = Event(
    "node_did_not_wake",
    "658cf3aed3f649e6aa3d4ab54d9fcb3c",
    "queen_rbee.fleet",
    logging.WARNING,
    "node {node_id} did not wake within {waited_s} s and counts as offline",
    "The machine has no power, its network interface does not listen for magic packets (on the machine:\n"
    "ethtool INTERFACE must show 'Wake-on: g', and the firmware may have an option for it), or the packets do\n"
    "not reach its network: see ORCHESTRATORD_WAKE_ADDR in queen-rbee.env(5). To try again:\n"
    "orchctl nodes wake @NODE_ID@.",
)
WAKE_NOT_SENT = Event(
    "wake_not_sent",
    "203f2d32996e4c77bb4a592d51c6024b",
    "queen_rbee.waking",
    logging.WARNING,
    "magic packets for node {node_id} cannot be sent to {target}: {reason}",
    "Sending is repeated. Check the network of the queen's machine, its firewall, and ORCHESTRATORD_WAKE_ADDR.",
)
SUSPEND_REQUESTED = Event(
    "suspend_requested",
    "cfda3fbba35c40d5ad533b107473dfc6",
    "pool_managerd.power",
    logging.INFO,
    "this machine has been idle for {idle_s} s and is to be suspended",
    "No action is required: llama-orch-suspend.service suspends it, and the queen wakes it.",
)
SUSPEND_ENDED = Event(
    "suspend_ended",
    "c7e24811821049ddb6c1c4c9f7e8297f",
    "pool_managerd.power",
    logging.INFO,
    "this machine was suspended for {slept_s} s",
    "No action is required.",
)
SUSPEND_FAILED = Event(
    "suspend_failed",
    "02c0b2ef0a3e414497891faa1963cc0b",
    "pool_managerd.power",
    logging.WARNING,
    "this machine stays awake: {reason}",
    "It is tried again when the machine has been idle for POOL_MANAGERD_SUSPEND_AFTER_SECS. If\n"
    "llama-orch-suspend.path is not enabled: systemctl enable --now llama-orch-suspend.path. If it is,\n"
    "journalctl -u llama-orch-suspend says what was in the way, such as a user who is logged in or an\n"
    "inhibitor lock (systemd-inhibit --list).",
)
SUSPEND_UNAVAILABLE = Event(
    "suspend_unavailable",
    "6b8afe16b1e94c838da9827a1db1f447",
    "pool_managerd.power",
    logging.WARNING,
    "this machine is not suspended when idle: {reason}",
    "The queen could not wake it. Enable Wake-on-LAN, for example by WakeOnLan=magic in a file of\n"
    "systemd.link(5) or with ethtool -s INTERFACE wol g, or set POOL_MANAGERD_WAKE_MACS. It is looked at again\n"
    "every minute.",
)
INHIBITOR_REFUSED = Event(
    "inhibitor_refused",
    "3e107074ad224aa1b04e191ef26e2859",
    "pool_managerd.power",
    logging.INFO,
    "the machine may be suspended while tasks run: {reason}",
    "pool-managerd holds an inhibitor lock of systemd-logind while work runs, so that a desktop does not\n"
    "suspend the machine meanwhile. That needs systemd-logind and polkit (packages dbus and polkitd); a server\n"
    "needs neither.",
)

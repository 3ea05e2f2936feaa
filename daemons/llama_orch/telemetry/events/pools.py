"""Events of pools: handoffs, health, GPUs, and how a node stands with its queen."""

import logging

from llama_orch.telemetry.events.declaring import declared

HANDOFF_TAKEN = declared(
    "handoff_taken",
    "004498f4b98747c18c9c26a813678d7a",
    "llama_orch.spool",
    logging.INFO,
    "handoff taken: pool {pool_id} replica {replica_id}, {engine} {engine_version} at {url}",
    "A new or restarted engine was announced and is now watched.",
)
HANDOFF_REJECTED = declared(
    "handoff_rejected",
    "0ecaf828e2f745538fcc69d79561a0d1",
    "llama_orch.spool",
    logging.WARNING,
    "handoff rejected: {file}: {reason}; moved to {moved_to}",
    "A file in the handoff directory could not be taken as an engine's announcement. It was moved aside with\n"
    "its reason beside it; nothing else is disturbed. See llama-orch-handoff(5) for what is allowed.",
)
POOL_READY = declared(
    "pool_ready",
    "73f80e52a36948b5a4414c46f147ecf9",
    "llama_orch.pools",
    logging.INFO,
    "pool {pool_id} replica {replica_id} is ready at {url}, {slots_total} slots",
    "The engine answers its health check; tasks are placed on it.",
)
POOL_UNREADY = declared(
    "pool_unready",
    "c1af446506f142fca1010f154a9f2968",
    "llama_orch.pools",
    logging.WARNING,
    "pool {pool_id} replica {replica_id} is not ready: {reason}",
    "The engine does not answer its health check, so that nothing is placed on it until it does again. Its own\n"
    "log: journalctl -u llama-engine@@POOL_ID@",
)
SPOOL_UNREADABLE = declared(
    "spool_unreadable",
    "6af0e4a9aaf94d2c8fdc0fad551fbd15",
    "llama_orch.spool",
    logging.ERROR,
    "no handoff can be taken: {reason}",
    "The handoff directory itself cannot be read, so that new engines stay unknown. As packaged it is\n"
    "/run/llama-orch/engines, 2770 engine-provisioner:llama-orch; systemd-tmpfiles --create makes it again.",
)
HANDOFF_KEPT = declared(
    "handoff_kept",
    "15c3f7c2a11c40cba86e1e025632fb5f",
    "llama_orch.spool",
    logging.WARNING,
    "handoff {file} was taken but cannot be deleted from {directory}: {reason}",
    "The engine is known; the file stays and is not taken again. The daemon's user needs write access to the\n"
    "handoff directory, as the group llama-orch has it.",
)
POOL_FORGOTTEN = declared(
    "pool_forgotten",
    "cc495a5029054417b491dc10e77cef80",
    "llama_orch.pools",
    logging.INFO,
    "pool {pool_id} replica {replica_id} is forgotten: {reason}",
    "It is not listed any more. It comes back as soon as its engine is announced again.",
)
POOLS_STATE_SET_ASIDE = declared(
    "pools_state_set_aside",
    "f7a901115de8476b9821d9e682d8bf3e",
    "pool_managerd.persistence",
    logging.WARNING,
    "the saved pools cannot be used: {reason}; moved to {moved_to}",
    "The file with the pools known before the last stop was damaged. Pools come back as their engines are\n"
    "announced again: systemctl restart engine-provisioner",
)
POOLS_STATE_NOT_SAVED = declared(
    "pools_state_not_saved",
    "45bbae5a64dc40d49d31d0ca5d9c8e1d",
    "pool_managerd.persistence",
    logging.ERROR,
    "the pools cannot be saved in {file}: {reason}",
    "pool-managerd goes on, but would not know its pools after a restart. Mend the disk or the directory's\n"
    "permissions; saving is tried again at the next change.",
)
GPUS_FOUND = declared(
    "gpus_found",
    "195db0c0f5dc40f3b0a5ab14429526ce",
    "pool_managerd.gpus",
    logging.INFO,
    "GPUs found: {gpus}",
    "Nothing needs to be done.",
)
GPU_LOST = declared(
    "gpu_lost",
    "4ba8f22206464462895c6982119e512b",
    "pool_managerd.gpus",
    logging.ERROR,
    "GPU {device} cannot be used any more: {reason}",
    "The driver lost the device; pools on it are not ready. See dmesg for Xid messages of the NVIDIA driver.\n"
    "Often only a reset or a reboot helps.",
)
REPORT_UNUSABLE = declared(
    "report_unusable",
    "b69fdb45ac834fa3976cd71c80f9ee5d",
    "pool_managerd.reports",
    logging.WARNING,
    "provisioning report {file} cannot be used: {reason}",
    "engine-provisioner writes these files; what a pool is waiting for is not shown until a good one comes.\n"
    "Its own log tells more: journalctl -u engine-provisioner",
)
GPUS_UNKNOWN = declared(
    "gpus_unknown",
    "b459071afb8a4f9ebf72c46dca8fbe35",
    "pool_managerd.gpus",
    logging.WARNING,
    "no NVIDIA GPUs can be seen: {reason}; pools on GPUs are not possible here",
    "The NVML library or the driver is missing. On a machine with NVIDIA GPUs install the driver\n"
    "(nvidia-driver and libnvidia-ml1) and restart pool-managerd. Pools on the CPU are not concerned.",
)
REGISTRATION_ACCEPTED = declared(
    "registration_accepted",
    "5aecae852d6e4d23bf06cfd1911dd47a",
    "pool_managerd.agent",
    logging.INFO,
    "registration of node {node_id} with {queen} succeeded; it is reached at {address}",
    "The queen knows this node. Heartbeats follow, and tasks with them once a pool is ready.",
)
REGISTRATION_WARNING = declared(
    "registration_warning",
    "b1b664831fba41098f6c9ebfe38b17da",
    "pool_managerd.agent",
    logging.WARNING,
    "registration of node {node_id} with {queen}: {warning}",
    "The node serves; the message says what should be changed, and on which side.",
)
REGISTRATION_LOCAL = declared(
    "registration_local",
    "448fbdc1178544fdab3f243c3a71680d",
    "pool_managerd.agent",
    logging.WARNING,
    "registration of node {node_id}: {address} can be reached from this machine only, and {queen} is another",
    "The queen cannot send tasks there. Set POOL_MANAGERD_BIND_ADDR=0.0.0.0:9200, or to an address of this machine\n"
    "that the queen can reach; POOL_MANAGERD_ADVERTISE_URL where that is another one (a proxy, a container). Then\n"
    "  systemctl daemon-reload && systemctl restart pool-managerd.socket pool-managerd.service",
)
REGISTRATION_REFUSED = declared(
    "registration_refused",
    "67885b8270c54a9382fa018d5d4640e7",
    "pool_managerd.agent",
    logging.ERROR,
    "registration of node {node_id} refused by {queen}: {reason}",
    "It is tried again and again, so that nothing needs to be done here once the cause is mended. A token that is\n"
    "not the queen's: compare token_fp6 in both logs. A node id that another machine has: give each its own\n"
    "POOL_MANAGERD_NODE_ID. A queen that takes no registrations: set ORCHESTRATORD_CLOUD_PROFILE=true there.",
)
REGISTRATION_WITHDRAWN = declared(
    "registration_withdrawn",
    "9574bf8fd4b84172b2bef9a41c1174bd",
    "pool_managerd.agent",
    logging.INFO,
    "registration of node {node_id} with {queen} withdrawn: pool-managerd stops",
    "The queen places nothing more here. What runs may end within the drain limit.",
)
QUEEN_SILENT = declared(
    "queen_silent",
    "ef8904e5d84c4415bc62d0d6bb41eae1",
    "pool_managerd.agent",
    logging.WARNING,
    "neither registration nor heartbeat of node {node_id} gets an answer from {queen}: {reason}",
    "It is tried again and again, at most 10 seconds apart. Is queen-rbee running, is ORCHESTRATORD_URL right,\n"
    "does a firewall let its port through? curl @QUEEN@/health asks the same way.",
)
QUEEN_ANSWERS = declared(
    "queen_answers",
    "e68f2cb295684ada91d2fc62b550be49",
    "pool_managerd.agent",
    logging.INFO,
    "heartbeat of node {node_id} is answered again by {queen}",
    "Nothing needs to be done.",
)
POOL_DRAINING = declared(
    "pool_draining",
    "39f19503af4747fca5f8bac074810261",
    "llama_orch.pools",
    logging.INFO,
    "pool {pool_id} is draining: it takes nothing new, and {leases} requests that pass through the relay may end",
    "Somebody asked for it. POST /v2/pools/@POOL_ID@/resume undoes it, POST /v2/resume where the whole node\n"
    "drains; so does a restart of pool-managerd.",
)
POOL_RESUMED = declared(
    "pool_resumed",
    "29c3bbb2373f40e59a6afa498168aa1b",
    "llama_orch.pools",
    logging.INFO,
    "pool {pool_id} is drained no more and takes requests again",
    "Nothing needs to be done.",
)

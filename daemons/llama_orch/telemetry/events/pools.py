"""Events of pools: handoffs, health, drains, and the registration of a node."""

import logging

from llama_orch.telemetry.events.event import Event

LOAD_PASSED_ON = Event(
    "load_passed_on",
    "eae4e5e615e94805a7a4ad92c2bf5334",
    "llama_orch.pools",
    logging.INFO,
    "pool {pool_id} is to be loaded: engine-provisioner gets the order",
    "The queen or an operator asked for it. Progress: orchctl pools, and journalctl -u engine-provisioner.",
)
REQUEST_RELAYED = Event(
    "request_relayed",
    "97bc34c4f9624d029cdb29c837b3fd87",
    "pool_managerd.relay",
    logging.DEBUG,
    "a request for pool {pool_id} replica {replica_id} is relayed to {url}",
    "No action is required.",
)
HANDOFF_TAKEN = Event(
    "handoff_taken",
    "004498f4b98747c18c9c26a813678d7a",
    "llama_orch.spool",
    logging.INFO,
    "handoff taken: pool {pool_id} replica {replica_id}, {engine} {engine_version} at {url}",
    "A new or restarted engine was announced and is now monitored.",
)
HANDOFF_REJECTED = Event(
    "handoff_rejected",
    "0ecaf828e2f745538fcc69d79561a0d1",
    "llama_orch.spool",
    logging.WARNING,
    "handoff rejected: {file}: {reason}; moved to {moved_to}",
    "A file in the handoff directory is not a valid announcement of an engine. It was moved aside together with\n"
    "the reason; other files are not affected. See llama-orch-handoff(5) for the format.",
)
POOL_READY = Event(
    "pool_ready",
    "73f80e52a36948b5a4414c46f147ecf9",
    "llama_orch.pools",
    logging.INFO,
    "pool {pool_id} replica {replica_id} is ready at {url}, {slots_total} slots",
    "The engine answers its health check; tasks are placed on it.",
)
POOL_UNREADY = Event(
    "pool_unready",
    "c1af446506f142fca1010f154a9f2968",
    "llama_orch.pools",
    logging.WARNING,
    "pool {pool_id} replica {replica_id} is not ready: {reason}",
    "The engine does not answer its health check, so no tasks are placed on it until it does. Log of the\n"
    "engine: journalctl -u llama-engine@@POOL_ID@",
)
POOL_UNLOADED = Event(
    "pool_unloaded",
    "78e56ed892294142b2adee6926fe7121",
    "llama_orch.pools",
    logging.INFO,
    "pool {pool_id} is unloaded: its engine no longer runs",
    "engine-provisioner has stopped the engine, as asked for. A request for the pool's model loads it again.",
)
SPOOL_UNREADABLE = Event(
    "spool_unreadable",
    "6af0e4a9aaf94d2c8fdc0fad551fbd15",
    "llama_orch.spool",
    logging.ERROR,
    "cannot read handoffs: {reason}",
    "The handoff directory is unreadable, so new engines stay unknown. The packages create it as\n"
    "/run/llama-orch/engines, 2770 engine-provisioner:llama-orch; systemd-tmpfiles --create restores it.",
)
HANDOFF_KEPT = Event(
    "handoff_kept",
    "15c3f7c2a11c40cba86e1e025632fb5f",
    "llama_orch.spool",
    logging.WARNING,
    "handoff {file} was taken but cannot be deleted from {directory}: {reason}",
    "The engine is known; the file stays and is not read again. The daemon's user needs write access to the\n"
    "handoff directory, which the group llama-orch has.",
)
POOL_FORGOTTEN = Event(
    "pool_forgotten",
    "cc495a5029054417b491dc10e77cef80",
    "llama_orch.pools",
    logging.INFO,
    "pool {pool_id} replica {replica_id} is no longer listed: {reason}",
    "It returns as soon as its engine is announced again.",
)
POOLS_STATE_SET_ASIDE = Event(
    "pools_state_set_aside",
    "f7a901115de8476b9821d9e682d8bf3e",
    "pool_managerd.persistence",
    logging.WARNING,
    "the saved pools are unusable: {reason}; moved to {moved_to}",
    "The file with the pools of the previous run was damaged. Pools return when their engines are announced\n"
    "again: systemctl restart engine-provisioner",
)
POOLS_STATE_NOT_SAVED = Event(
    "pools_state_not_saved",
    "45bbae5a64dc40d49d31d0ca5d9c8e1d",
    "pool_managerd.persistence",
    logging.ERROR,
    "cannot save the pools in {file}: {reason}",
    "pool-managerd continues, but will not know its pools after a restart. Fix the disk or the permissions of the\n"
    "directory; the next change is saved again.",
)
REPORT_UNUSABLE = Event(
    "report_unusable",
    "b69fdb45ac834fa3976cd71c80f9ee5d",
    "pool_managerd.reports",
    logging.WARNING,
    "provisioning report {file} is unusable: {reason}",
    "engine-provisioner writes these files. Until it writes a valid one, the progress of the pool is not shown.\n"
    "See its log: journalctl -u engine-provisioner",
)
REGISTRATION_ACCEPTED = Event(
    "registration_accepted",
    "5aecae852d6e4d23bf06cfd1911dd47a",
    "pool_managerd.agent",
    logging.INFO,
    "registration of node {node_id} with {queen} succeeded; its address is {address}",
    "The queen knows this node. It sends heartbeats, and gets tasks when a pool is ready.",
)
REGISTRATION_WARNING = Event(
    "registration_warning",
    "b1b664831fba41098f6c9ebfe38b17da",
    "pool_managerd.agent",
    logging.WARNING,
    "registration of node {node_id} with {queen}: {warning}",
    "The node works; the message says what to change, and on which side.",
)
REGISTRATION_LOCAL = Event(
    "registration_local",
    "448fbdc1178544fdab3f243c3a71680d",
    "pool_managerd.agent",
    logging.WARNING,
    "registration of node {node_id}: {address} is reachable only from this machine, but {queen} is another one",
    "The queen cannot send tasks there. Set POOL_MANAGERD_BIND_ADDR to 0.0.0.0:9200 or to an address of this\n"
    "machine that the queen can reach. Behind a proxy or in a container also set POOL_MANAGERD_ADVERTISE_URL. Then\n"
    "  systemctl daemon-reload && systemctl restart pool-managerd.socket pool-managerd.service",
)
REGISTRATION_REFUSED = Event(
    "registration_refused",
    "67885b8270c54a9382fa018d5d4640e7",
    "pool_managerd.agent",
    logging.ERROR,
    "registration of node {node_id} refused by {queen}: {reason}",
    "The node retries, so no action is required here after the cause is fixed. Wrong token: compare token_fp6 in\n"
    "both logs. Node id in use by another machine: give each machine its own POOL_MANAGERD_NODE_ID. Queen without\n"
    "registrations: set ORCHESTRATORD_CLOUD_PROFILE=true there.",
)
REGISTRATION_WITHDRAWN = Event(
    "registration_withdrawn",
    "9574bf8fd4b84172b2bef9a41c1174bd",
    "pool_managerd.agent",
    logging.INFO,
    "registration of node {node_id} with {queen} withdrawn: pool-managerd stops",
    "The queen places no more tasks here. Running ones may finish within the drain limit.",
)
QUEEN_SILENT = Event(
    "queen_silent",
    "ef8904e5d84c4415bc62d0d6bb41eae1",
    "pool_managerd.agent",
    logging.WARNING,
    "no answer from {queen} to the registration or heartbeat of node {node_id}: {reason}",
    "The node retries at least every 10 seconds. Check that queen-rbee is running, that ORCHESTRATORD_URL is right,\n"
    "and that no firewall blocks the port: curl @QUEEN@/health",
)
QUEEN_ANSWERS = Event(
    "queen_answers",
    "e68f2cb295684ada91d2fc62b550be49",
    "pool_managerd.agent",
    logging.INFO,
    "{queen} answers the heartbeats of node {node_id} again",
    "No action is required.",
)
POOL_DRAINING = Event(
    "pool_draining",
    "39f19503af4747fca5f8bac074810261",
    "llama_orch.pools",
    logging.INFO,
    "pool {pool_id} is draining: it takes no new requests, {leases} relayed requests may finish",
    "An operator started the drain, or its GPU is fenced (event gpu_fenced). POST /v2/pools/@POOL_ID@/resume ends\n"
    "an operator's drain, for a whole node POST /v2/resume; a restart of pool-managerd ends it too.",
)
POOL_RESUMED = Event(
    "pool_resumed",
    "29c3bbb2373f40e59a6afa498168aa1b",
    "llama_orch.pools",
    logging.INFO,
    "pool {pool_id} is resumed and takes requests again",
    "No action is required.",
)

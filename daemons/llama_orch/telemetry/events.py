"""The operator-visible events: stable MESSAGE_IDs, the words in the journal, and what to do about each.

The journal catalog that ships with the packages is generated from here (`make generate`). An id is never
reused for another meaning; a new event gets a fresh one (`systemd-id128 new`).
"""

import logging
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One kind of event. `text` is filled with the event's fields; `advice` is what `journalctl -x` shows."""

    name: str
    message_id: str
    logger: str
    level: int
    text: str
    advice: str


CATALOG: list[Event] = []


def _event(name: str, message_id: str, logger: str, level: int, text: str, advice: str) -> Event:
    event = Event(name, message_id, logger, level, text, advice)
    CATALOG.append(event)
    return event


CONFIGURATION_REFUSED = _event(
    "configuration_refused",
    "f3c95789ace14954ac5d6baed2eac902",
    "llama_orch.service",
    logging.ERROR,
    "configuration refused: {problems}",
    "One or more variables cannot be used; the message names each with what is allowed. The daemon does not\n"
    "start again by itself. Mend the environment file, check it with\n"
    "  (set -a; . /etc/llama-orch/@SYSLOG_IDENTIFIER@.env; @SYSLOG_IDENTIFIER@ --check-config)\n"
    "and start the unit again.",
)
START_FAILED = _event(
    "start_failed",
    "cbf27734ac1045258b66402800e03d2c",
    "llama_orch.service",
    logging.ERROR,
    "cannot start: {problem}. {hint}",
    "The daemon could not get something that it needs to run. The message says what and how to mend it.",
)
DAEMON_READY = _event(
    "daemon_ready",
    "e0a3a91f23464c13bc27ed12b10877a9",
    "llama_orch.service",
    logging.INFO,
    "{daemon} {version} ready on {address}",
    "All loops of the daemon have started and its sockets answer.",
)
SOCKET_DISAGREES = _event(
    "socket_disagrees",
    "f1260ebc7d564b56b714dc919b27dbdf",
    "llama_orch.service",
    logging.WARNING,
    "the {name} socket listens on {actual}, but {variable} says {wanted}; mend it with: {command}",
    "The listening socket belongs to systemd and was set up before the environment file changed. Run the\n"
    "command in the message to move it.",
)
NON_LOOPBACK_OPEN = _event(
    "non_loopback_without_token",
    "6caf76a5703548ae8280ad3729a6f2e7",
    "llama_orch.service",
    logging.WARNING,
    "listening on {address} without a token: peers from other machines get 403",
    "Only /health, /ready and /v2/meta/ are served to other machines. Set LLORCH_API_TOKEN to serve them, or\n"
    "bind to 127.0.0.1.",
)
TOKEN_REFUSED = _event(
    "token_refused",
    "561dfe41e85141b29c50260d9abd484b",
    "llama_orch.gate",
    logging.WARNING,
    "{peer} shows a wrong token ({shown}); its requests are refused",
    "Compare the fingerprint with those that the daemon accepts, which it logs at its start:\n"
    "  journalctl -u @SYSLOG_IDENTIFIER@ | grep token_fp6\n"
    "A client or a node with an old token needs the present one; see TOKEN ROTATION in llama-orch(7). There is\n"
    "at most one such line a minute for each peer, and 64 for all of them.",
)
HANDSHAKE_FAILED = _event(
    "tls_handshake_failed",
    "7666f371683d4ba48e7806de6240c799",
    "llama_orch.serving",
    logging.WARNING,
    "no TLS with {peer}: {reason}",
    "A peer wanted to speak to the API and could not. Its URL must begin with https://, it must accept the CA\n"
    "of this daemon's certificate, and show a certificate of the CA in LLORCH_TLS_CA_FILE where that is set;\n"
    "see TLS in llama-orch(7). There is at most one such line a minute for each peer, and 64 for all of them.",
)
SECOND_TOKEN_SAME = _event(
    "second_token_same",
    "4f633f920b40449d87bbab64b58b8ea1",
    "llama_orch.service",
    logging.WARNING,
    "LLORCH_API_TOKEN_SECOND is the same as LLORCH_API_TOKEN ({token}): no other token is accepted",
    "In a rotation the second token is the other one of the old and the new: see TOKEN ROTATION in\n"
    "llama-orch(7). Where none is under way, remove it.",
)
NO_EFFECT = _event(
    "settings_without_effect",
    "3f0c9931918c40bf9670c342c6cce996",
    "llama_orch.service",
    logging.INFO,
    "these variables are set but have no effect in {profile}: {variables}",
    "They belong to the other profile. Nothing needs to be done.",
)
UNKNOWN_VARIABLES = _event(
    "settings_unknown",
    "33138eccb4844d4b872ab33f8fb5f160",
    "llama_orch.service",
    logging.WARNING,
    "no daemon knows these variables, which may be misspelt and have no effect: {variables}",
    "The names look like variables of llama-orch and are none of any daemon's. Correct or remove them in\n"
    "/etc/llama-orch/@SYSLOG_IDENTIFIER@.env; @SYSLOG_IDENTIFIER@.env(5) has all that there are.",
)
HANDOFF_TAKEN = _event(
    "handoff_taken",
    "004498f4b98747c18c9c26a813678d7a",
    "llama_orch.spool",
    logging.INFO,
    "handoff taken: pool {pool_id} replica {replica_id}, {engine} {engine_version} at {url}",
    "A new or restarted engine was announced and is now watched.",
)
HANDOFF_REJECTED = _event(
    "handoff_rejected",
    "0ecaf828e2f745538fcc69d79561a0d1",
    "llama_orch.spool",
    logging.WARNING,
    "handoff rejected: {file}: {reason}; moved to {moved_to}",
    "A file in the handoff directory could not be taken as an engine's announcement. It was moved aside with\n"
    "its reason beside it; nothing else is disturbed. See llama-orch-handoff(5) for what is allowed.",
)
POOL_READY = _event(
    "pool_ready",
    "73f80e52a36948b5a4414c46f147ecf9",
    "llama_orch.pools",
    logging.INFO,
    "pool {pool_id} replica {replica_id} is ready at {url}, {slots_total} slots",
    "The engine answers its health check; tasks are placed on it.",
)
POOL_UNREADY = _event(
    "pool_unready",
    "c1af446506f142fca1010f154a9f2968",
    "llama_orch.pools",
    logging.WARNING,
    "pool {pool_id} replica {replica_id} is not ready: {reason}",
    "The engine does not answer its health check, so that nothing is placed on it until it does again. Its own\n"
    "log: journalctl -u llama-engine@@POOL_ID@",
)
SPOOL_UNREADABLE = _event(
    "spool_unreadable",
    "6af0e4a9aaf94d2c8fdc0fad551fbd15",
    "llama_orch.spool",
    logging.ERROR,
    "no handoff can be taken: {reason}",
    "The handoff directory itself cannot be read, so that new engines stay unknown. As packaged it is\n"
    "/run/llama-orch/engines, 2770 engine-provisioner:llama-orch; systemd-tmpfiles --create makes it again.",
)
HANDOFF_KEPT = _event(
    "handoff_kept",
    "15c3f7c2a11c40cba86e1e025632fb5f",
    "llama_orch.spool",
    logging.WARNING,
    "handoff {file} was taken but cannot be deleted from {directory}: {reason}",
    "The engine is known; the file stays and is not taken again. The daemon's user needs write access to the\n"
    "handoff directory, as the group llama-orch has it.",
)
POOL_FORGOTTEN = _event(
    "pool_forgotten",
    "cc495a5029054417b491dc10e77cef80",
    "llama_orch.pools",
    logging.INFO,
    "pool {pool_id} replica {replica_id} is forgotten: {reason}",
    "It is not listed any more. It comes back as soon as its engine is announced again.",
)
POOLS_STATE_SET_ASIDE = _event(
    "pools_state_set_aside",
    "f7a901115de8476b9821d9e682d8bf3e",
    "pool_managerd.persistence",
    logging.WARNING,
    "the saved pools cannot be used: {reason}; moved to {moved_to}",
    "The file with the pools known before the last stop was damaged. Pools come back as their engines are\n"
    "announced again: systemctl restart engine-provisioner",
)
POOLS_STATE_NOT_SAVED = _event(
    "pools_state_not_saved",
    "45bbae5a64dc40d49d31d0ca5d9c8e1d",
    "pool_managerd.persistence",
    logging.ERROR,
    "the pools cannot be saved in {file}: {reason}",
    "pool-managerd goes on, but would not know its pools after a restart. Mend the disk or the directory's\n"
    "permissions; saving is tried again at the next change.",
)
GPUS_FOUND = _event(
    "gpus_found",
    "195db0c0f5dc40f3b0a5ab14429526ce",
    "pool_managerd.gpus",
    logging.INFO,
    "GPUs found: {gpus}",
    "Nothing needs to be done.",
)
GPU_LOST = _event(
    "gpu_lost",
    "4ba8f22206464462895c6982119e512b",
    "pool_managerd.gpus",
    logging.ERROR,
    "GPU {device} cannot be used any more: {reason}",
    "The driver lost the device; pools on it are not ready. See dmesg for Xid messages of the NVIDIA driver.\n"
    "Often only a reset or a reboot helps.",
)
REPORT_UNUSABLE = _event(
    "report_unusable",
    "b69fdb45ac834fa3976cd71c80f9ee5d",
    "pool_managerd.reports",
    logging.WARNING,
    "provisioning report {file} cannot be used: {reason}",
    "engine-provisioner writes these files; what a pool is waiting for is not shown until a good one comes.\n"
    "Its own log tells more: journalctl -u engine-provisioner",
)
GPUS_UNKNOWN = _event(
    "gpus_unknown",
    "b459071afb8a4f9ebf72c46dca8fbe35",
    "pool_managerd.gpus",
    logging.WARNING,
    "no NVIDIA GPUs can be seen: {reason}; pools on GPUs are not possible here",
    "The NVML library or the driver is missing. On a machine with NVIDIA GPUs install the driver\n"
    "(nvidia-driver and libnvidia-ml1) and restart pool-managerd. Pools on the CPU are not concerned.",
)
PROVISIONING_STARTED = _event(
    "provisioning_started",
    "5a3c1fbdf9da4bf3a81696a68afe2312",
    "engine_provisioner.pool",
    logging.INFO,
    "provisioning pool {pool_id}: {detail}",
    "The engine and the model are being fetched and checked.",
)
ENGINE_STARTED = _event(
    "engine_started",
    "135d63cf1293424c802a2e8f96fc5ce8",
    "engine_provisioner.pool",
    logging.INFO,
    "engine of pool {pool_id} runs at {url} ({engine} {engine_version}); handoff {file} written",
    "The engine answered its health check and was announced to pool-managerd.",
)
ENGINE_ADOPTED = _event(
    "engine_adopted",
    "a4ea3938d4294c52810915b0875b0b21",
    "engine_provisioner.pool",
    logging.INFO,
    "engine of pool {pool_id} was already running at {url} and is adopted",
    "It was started before this daemon and is what the pools file asks for, so it was left running.",
)
ENGINE_FAILED = _event(
    "engine_failed",
    "bdfaef428c7d4431b331dab129ea3a7b",
    "engine_provisioner.pool",
    logging.ERROR,
    "pool {pool_id} failed: {last_error}; {next_step}",
    "The engine or its model could not be had or run. The message ends with what happens next. The engine's\n"
    "own log: journalctl -u llama-engine@@POOL_ID@",
)
ENGINE_RETIRED = _event(
    "engine_retired",
    "0d28e8a77eec44eaa88cbfac0f0079d5",
    "engine_provisioner.clearing",
    logging.INFO,
    "pool {pool_id} is in the pools file no more: its engine was stopped and its announcement withdrawn",
    "Nothing needs to be done. To have the pool again, put it back into the pools file and restart\n"
    "engine-provisioner.",
)
POOLS_FILE_REFUSED = _event(
    "pools_file_refused",
    "4260ce86ca964d78ba569ee452a5d423",
    "engine_provisioner.pools_file",
    logging.ERROR,
    "pools file refused: {problems}",
    "The message names file, line and key with what is allowed. Mend it and restart engine-provisioner.\n"
    "See llama-orch-pools(5).",
)
POOLS_FILE_ABSENT = _event(
    "pools_file_absent",
    "44e767f743bb4898ac59157196f119be",
    "engine_provisioner.pools_file",
    logging.WARNING,
    "there is no pools file at {path}: nothing to provision",
    "Write one (an example is in /usr/share/doc/llama-orch/examples/pools.toml) and restart\n"
    "engine-provisioner. On a machine that runs no engines, disable engine-provisioner.",
)
DAEMON_STOPPING = _event(
    "daemon_stopping",
    "23cc390c935440e38e1f39485d23d1f3",
    "llama_orch.service",
    logging.INFO,
    "{daemon} is stopping: {detail}",
    "A graceful stop: nothing new is taken, what runs may end within the drain limit.",
)
TASK_FAILED = _event(
    "task_failed",
    "4d1dd7de07c1437b95d0c57b811008b7",
    "queen_rbee.tasks",
    logging.WARNING,
    "task {job_id} ended with {code}: {reason}",
    "The client has seen the same code. POOL_ID names the pool it ran on, if any.",
)
TASK_ENDED = _event(
    "task_ended",
    "06f3179fec434ae0a6e144cf0b4152c8",
    "queen_rbee.tasks",
    logging.INFO,
    "task {job_id} {state} on pool {pool_id}: {tokens_out} tokens in {decode_ms} ms",
    "Nothing needs to be done.",
)
MODEL_MISMATCH = _event(
    "model_mismatch",
    "abe23aaeaf48463097de77c3d798505a",
    "queen_rbee.catalog",
    logging.ERROR,
    "model {model_id} is not what the catalog says and is served no more: {reason}",
    "The file is damaged or another one, or the digest belongs to another file. Mend either, and then\n"
    "POST /v2/catalog/models/@MODEL_ID@/verify.",
)
STORE_FAILING = _event(
    "store_failing",
    "0a7150122956464389fb0c7ff7ef523f",
    "queen_rbee.store",
    logging.ERROR,
    "the queen's state cannot be stored: {problem}. {hint}",
    "Until it can, new tasks and changes are refused with 503; tasks that are accepted already run on. It is\n"
    "tried again every second; store_working says when it is over. df and findmnt -T tell about the directory\n"
    "(/var/lib/queen-rbee), journalctl -k about the disk.",
)
STORE_WORKING = _event(
    "store_working",
    "4863e4dbc59043bd938c92f8788c314e",
    "queen_rbee.store",
    logging.INFO,
    "the queen's state is stored again in {file}; {lost} records of the meantime were not kept",
    "Nothing needs to be done.",
)
TASKS_RESTORED = _event(
    "tasks_restored",
    "54db34e21f1542b7a8431469520992f7",
    "queen_rbee.store",
    logging.INFO,
    "tasks of the previous run: {waiting} wait again, {ended} ended",
    "Those that ended had a part of their answer shown already (WORKER_RESET, retriable), or their deadline passed.",
)
TASKS_DROPPED = _event(
    "tasks_dropped",
    "53abf5dbce4f4feb9939a84128ba9421",
    "queen_rbee.tasks",
    logging.WARNING,
    "the queue was full: {count} waiting tasks were dropped for newer ones",
    "Their clients have seen QUEUE_FULL_DROP_LRU and when to come again. Where this goes on, more is asked than the\n"
    "pools can do: add slots, or set ORCHD_ADMISSION_POLICY=reject-new to keep what waits.",
)
CIRCUIT_OPENED = _event(
    "circuit_opened",
    "3011678527d545799c494d6d9618e905",
    "queen_rbee.circuits",
    logging.WARNING,
    "pool {pool_id} replica {replica_id} failed {faults} times in a row and gets no tasks for {rest_s} s: {reason}",
    "After that one task tries it: where it is answered, circuit_closed follows; else it rests for longer. The\n"
    "reason is of the last failure; see the engine's log and, on a node, that of pool-managerd.",
)
CIRCUIT_CLOSED = _event(
    "circuit_closed",
    "d3f936eac0f345f89178fc92b3ec020e",
    "queen_rbee.circuits",
    logging.INFO,
    "pool {pool_id} replica {replica_id} answers again and gets tasks as before",
    "Nothing needs to be done.",
)
NODE_REGISTERED = _event(
    "node_registered",
    "49a123da7a0644a69718f3205780e885",
    "queen_rbee.fleet",
    logging.INFO,
    "node_registration of {node_id} at {address} accepted (from {peer}, release {version}, {pools} pools)",
    "Nothing needs to be done.",
)
NODE_REFUSED = _event(
    "node_refused",
    "edc25ff113314be3bb016c0fc243aadc",
    "queen_rbee.fleet",
    logging.ERROR,
    "node_registration of {node_id} at {address} (from {peer}) refused: {reason}",
    "Each node needs a POOL_MANAGERD_NODE_ID of its own. Where a machine was replaced or reinstalled, take the old\n"
    "node out with orchctl nodes remove @NODE_ID@; the new one tries again by itself.",
)
NODE_WARNING = _event(
    "node_warning",
    "a8e08963a6be44679f44c67543f6de28",
    "queen_rbee.fleet",
    logging.WARNING,
    "node_registration of {node_id}: {warning}",
    "The node serves; the message says what should be changed, and on which side.",
)
NODE_ONLINE = _event(
    "node_online",
    "5aaabbc63f9741b4901b2c39742ca072",
    "queen_rbee.fleet",
    logging.INFO,
    "node {node_id} sends heartbeats again after {silent_s} s and gets tasks as before",
    "Nothing needs to be done.",
)
NODE_OFFLINE = _event(
    "node_offline",
    "7f9bf404a42e4b448ff60dc9c733bb93",
    "queen_rbee.fleet",
    logging.WARNING,
    "node {node_id} at {address} is offline: no heartbeat for {silent_s} s; its {tasks} tasks go elsewhere or end",
    "The machine, its network or its pool-managerd is down. On the node: systemctl status pool-managerd, and\n"
    "orchctl check. It gets tasks again with its next heartbeat.",
)
NODE_DEREGISTERED = _event(
    "node_deregistered",
    "0d38149387274aecbdae56bafac2d6d3",
    "queen_rbee.fleet",
    logging.INFO,
    "node {node_id} has left: {reason}",
    "A stop of its pool-managerd, or orchctl nodes remove. It comes back by registering again.",
)
DRAIN_STARTED = _event(
    "drain_started",
    "ae3aff7267954508ad029800dddc9e3d",
    "queen_rbee.operations",
    logging.INFO,
    "drain of {target} started: {leases} tasks run there",
    "Nothing new is placed there. orchctl operations shows the progress, orchctl resume undoes it.",
)
DRAIN_ENDED = _event(
    "drain_ended",
    "a27fb467f1f54e329961ef2c4386ea1e",
    "queen_rbee.operations",
    logging.INFO,
    "drain of {target} {state}: {detail}",
    "What is drained stays so until orchctl resume, or until its pool-managerd starts anew.",
)
REGISTRATION_ACCEPTED = _event(
    "registration_accepted",
    "5aecae852d6e4d23bf06cfd1911dd47a",
    "pool_managerd.agent",
    logging.INFO,
    "registration of node {node_id} with {queen} succeeded; it is reached at {address}",
    "The queen knows this node. Heartbeats follow, and tasks with them once a pool is ready.",
)
REGISTRATION_WARNING = _event(
    "registration_warning",
    "b1b664831fba41098f6c9ebfe38b17da",
    "pool_managerd.agent",
    logging.WARNING,
    "registration of node {node_id} with {queen}: {warning}",
    "The node serves; the message says what should be changed, and on which side.",
)
REGISTRATION_LOCAL = _event(
    "registration_local",
    "448fbdc1178544fdab3f243c3a71680d",
    "pool_managerd.agent",
    logging.WARNING,
    "registration of node {node_id}: {address} can be reached from this machine only, and {queen} is another",
    "The queen cannot send tasks there. Set POOL_MANAGERD_BIND_ADDR=0.0.0.0:9200, or to an address of this machine\n"
    "that the queen can reach; POOL_MANAGERD_ADVERTISE_URL where that is another one (a proxy, a container). Then\n"
    "  systemctl daemon-reload && systemctl restart pool-managerd.socket pool-managerd.service",
)
REGISTRATION_REFUSED = _event(
    "registration_refused",
    "67885b8270c54a9382fa018d5d4640e7",
    "pool_managerd.agent",
    logging.ERROR,
    "registration of node {node_id} refused by {queen}: {reason}",
    "It is tried again and again, so that nothing needs to be done here once the cause is mended. A token that is\n"
    "not the queen's: compare token_fp6 in both logs. A node id that another machine has: give each its own\n"
    "POOL_MANAGERD_NODE_ID. A queen that takes no registrations: set ORCHESTRATORD_CLOUD_PROFILE=true there.",
)
REGISTRATION_WITHDRAWN = _event(
    "registration_withdrawn",
    "9574bf8fd4b84172b2bef9a41c1174bd",
    "pool_managerd.agent",
    logging.INFO,
    "registration of node {node_id} with {queen} withdrawn: pool-managerd stops",
    "The queen places nothing more here. What runs may end within the drain limit.",
)
QUEEN_SILENT = _event(
    "queen_silent",
    "ef8904e5d84c4415bc62d0d6bb41eae1",
    "pool_managerd.agent",
    logging.WARNING,
    "neither registration nor heartbeat of node {node_id} gets an answer from {queen}: {reason}",
    "It is tried again and again, at most 10 seconds apart. Is queen-rbee running, is ORCHESTRATORD_URL right,\n"
    "does a firewall let its port through? curl @QUEEN@/health asks the same way.",
)
QUEEN_ANSWERS = _event(
    "queen_answers",
    "e68f2cb295684ada91d2fc62b550be49",
    "pool_managerd.agent",
    logging.INFO,
    "heartbeat of node {node_id} is answered again by {queen}",
    "Nothing needs to be done.",
)
POOL_DRAINING = _event(
    "pool_draining",
    "39f19503af4747fca5f8bac074810261",
    "llama_orch.pools",
    logging.INFO,
    "pool {pool_id} is draining: it takes nothing new, and {leases} requests that pass through the relay may end",
    "Somebody asked for it. POST /v2/pools/@POOL_ID@/resume undoes it, POST /v2/resume where the whole node\n"
    "drains; so does a restart of pool-managerd.",
)
POOL_RESUMED = _event(
    "pool_resumed",
    "29c3bbb2373f40e59a6afa498168aa1b",
    "llama_orch.pools",
    logging.INFO,
    "pool {pool_id} is drained no more and takes requests again",
    "Nothing needs to be done.",
)

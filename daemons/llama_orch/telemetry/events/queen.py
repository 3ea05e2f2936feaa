"""Events of queen-rbee: nodes, tasks, circuits, drains, the store."""

import logging

from llama_orch.telemetry.events.event import Event

TASK_ADMITTED = Event(
    "task_admitted",
    "66bf99d0dcee4338badc46b22427570f",
    "queen_rbee.tasks",
    logging.DEBUG,
    "task {job_id} is in the queue, number {position}",
    "No action is required. journalctl CORRELATION_ID=... shows the whole way of the request.",
)
TASK_PLACED = Event(
    "task_placed",
    "f304f066764840fdb8a6a5a4ce699f40",
    "queen_rbee.tasks",
    logging.DEBUG,
    "task {job_id} has a slot of pool {pool_id} replica {replica_id}",
    "No action is required.",
)
TASK_SENT = Event(
    "task_sent",
    "32cfb55be4a747aca35755e0ed987ce7",
    "queen_rbee.tasks",
    logging.DEBUG,
    "task {job_id} is sent to pool {pool_id} at {url}",
    "No action is required. The URL is that of the engine, or of the relay of its node.",
)
TASK_FAILED = Event(
    "task_failed",
    "4d1dd7de07c1437b95d0c57b811008b7",
    "queen_rbee.tasks",
    logging.WARNING,
    "task {job_id} ended with {code}: {reason}",
    "The client got the same code. POOL_ID is the pool on which the task ran, if any.",
)
TASK_ENDED = Event(
    "task_ended",
    "06f3179fec434ae0a6e144cf0b4152c8",
    "queen_rbee.tasks",
    logging.INFO,
    "task {job_id} {state} on pool {pool_id}: {tokens_out} tokens in {decode_ms} ms",
    "No action is required.",
)
MODEL_MISMATCH = Event(
    "model_mismatch",
    "abe23aaeaf48463097de77c3d798505a",
    "queen_rbee.catalog",
    logging.ERROR,
    "model {model_id} does not match the catalog and is no longer served: {reason}",
    "The file is damaged or was replaced, or the digest belongs to another file. Fix either, and then\n"
    "POST /v2/catalog/models/@MODEL_ID@/verify.",
)
STORE_FAILING = Event(
    "store_failing",
    "0a7150122956464389fb0c7ff7ef523f",
    "queen_rbee.store",
    logging.ERROR,
    "the queen's state cannot be stored: {problem}. {hint}",
    "Until then new tasks and changes are refused with 503; tasks already accepted continue. The queen retries\n"
    "every second and logs store_working when it succeeds. Check the directory /var/lib/queen-rbee with df and\n"
    "findmnt -T, and the disk with journalctl -k.",
)
STORE_WORKING = Event(
    "store_working",
    "4863e4dbc59043bd938c92f8788c314e",
    "queen_rbee.store",
    logging.INFO,
    "the queen's state is stored again in {file}; {lost} records written meanwhile were lost",
    "No action is required.",
)
TASKS_RESTORED = Event(
    "tasks_restored",
    "54db34e21f1542b7a8431469520992f7",
    "queen_rbee.store",
    logging.INFO,
    "tasks of the previous run: {waiting} queued again, {ended} ended",
    "A task ended if its client already had a part of the answer (WORKER_RESET, retriable) or its deadline passed.",
)
TASKS_DROPPED = Event(
    "tasks_dropped",
    "53abf5dbce4f4feb9939a84128ba9421",
    "queen_rbee.tasks",
    logging.WARNING,
    "the queue was full: {count} waiting tasks were dropped for newer ones",
    "Their clients got QUEUE_FULL_DROP_LRU and a time to retry. If this continues, the load exceeds the capacity\n"
    "of the pools: add slots, or set ORCHD_ADMISSION_POLICY=reject-new to keep the waiting tasks.",
)
CIRCUIT_OPENED = Event(
    "circuit_opened",
    "3011678527d545799c494d6d9618e905",
    "queen_rbee.circuits",
    logging.WARNING,
    "pool {pool_id} replica {replica_id} gets no tasks until it passes a health check: {reason}",
    "It refused connections, failed its health check, or failed requests of several clients. The health check is\n"
    "repeated; circuit_closed follows when it passes. See the log of the engine and, on a node, of pool-managerd.",
)
CIRCUIT_CLOSED = Event(
    "circuit_closed",
    "d3f936eac0f345f89178fc92b3ec020e",
    "queen_rbee.circuits",
    logging.INFO,
    "pool {pool_id} replica {replica_id} answers again and gets tasks",
    "No action is required.",
)
NODE_REGISTERED = Event(
    "node_registered",
    "49a123da7a0644a69718f3205780e885",
    "queen_rbee.fleet",
    logging.INFO,
    "node_registration of {node_id} at {address} accepted (from {peer}, release {version}, {pools} pools)",
    "No action is required.",
)
NODE_REFUSED = Event(
    "node_refused",
    "edc25ff113314be3bb016c0fc243aadc",
    "queen_rbee.fleet",
    logging.ERROR,
    "node_registration of {node_id} at {address} (from {peer}) refused: {reason}",
    "Each node needs its own POOL_MANAGERD_NODE_ID. If a machine was replaced or reinstalled, remove the old node\n"
    "with orchctl nodes remove @NODE_ID@; the new one retries by itself.",
)
NODE_WARNING = Event(
    "node_warning",
    "a8e08963a6be44679f44c67543f6de28",
    "queen_rbee.fleet",
    logging.WARNING,
    "node_registration of {node_id}: {warning}",
    "The node works; the message says what to change, and on which side.",
)
NODE_ONLINE = Event(
    "node_online",
    "5aaabbc63f9741b4901b2c39742ca072",
    "queen_rbee.fleet",
    logging.INFO,
    "node {node_id} sends heartbeats again after {silent_s} s and gets tasks",
    "No action is required.",
)
NODE_OFFLINE = Event(
    "node_offline",
    "7f9bf404a42e4b448ff60dc9c733bb93",
    "queen_rbee.fleet",
    logging.WARNING,
    "node {node_id} at {address} is offline: no heartbeat for {silent_s} s; its {tasks} tasks are placed again or end",
    "The machine, its network or its pool-managerd is down. On the node: systemctl status pool-managerd, and\n"
    "orchctl check. It gets tasks again with its next heartbeat.",
)
NODE_DEREGISTERED = Event(
    "node_deregistered",
    "0d38149387274aecbdae56bafac2d6d3",
    "queen_rbee.fleet",
    logging.INFO,
    "node {node_id} has left: {reason}",
    "Its pool-managerd stopped, or the node was removed with orchctl nodes remove. It returns by registering again.",
)
LOAD_ORDERED = Event(
    "load_ordered",
    "cada7a9c2e4d47c8a803f7ceeea0edcd",
    "queen_rbee.residency",
    logging.INFO,
    "pool {pool_id} is loaded: {reason}",
    "No action is required. orchctl pools shows when it is ready.",
)
UNLOAD_ORDERED = Event(
    "unload_ordered",
    "0cd3e6e0d8914c63bae42765195695a2",
    "queen_rbee.residency",
    logging.INFO,
    "pool {pool_id} is unloaded: {reason}",
    "No action is required: the next request loads it again. To keep it loaded, set keep_alive = -1 or\n"
    "pinned = true for it in pools.toml.",
)
SWITCH_ORDERED = Event(
    "switch_ordered",
    "8c12a551fef14502814eb93bccd18259",
    "queen_rbee.residency",
    logging.INFO,
    "pool {pool_id} is drained, and its engine is replaced: it is being reloaded",
    "No action is required: tasks wait until the new engine is ready, or the former one is again.",
)
RESIDENCY_FAILED = Event(
    "residency_failed",
    "e0e8a3c5486b400ca147ce4fdd279cf5",
    "queen_rbee.residency",
    logging.WARNING,
    "cannot {verb} pool {pool_id}: {reason}",
    "It is tried again while tasks wait for it. Check pool-managerd and engine-provisioner on its machine:\n"
    "systemctl status pool-managerd engine-provisioner.",
)
DRAIN_STARTED = Event(
    "drain_started",
    "ae3aff7267954508ad029800dddc9e3d",
    "queen_rbee.operations",
    logging.INFO,
    "drain of {target} started: {leases} tasks run there",
    "No new tasks are placed there. orchctl operations shows the progress, orchctl resume ends the drain.",
)
DRAIN_ENDED = Event(
    "drain_ended",
    "a27fb467f1f54e329961ef2c4386ea1e",
    "queen_rbee.operations",
    logging.INFO,
    "drain of {target} {state}: {detail}",
    "The drain lasts until orchctl resume, or until its pool-managerd restarts.",
)
BATCH_ENDED = Event(
    "batch_ended",
    "0c8b216fbd3246baa611c0cc75f5f6bf",
    "queen_rbee.batches",
    logging.INFO,
    "batch {batch} is {state}: {completed} of {total} requests answered, {failed} failed",
    "No action is required. GET /v1/batches/ID names the files with the results and the failures.",
)
BATCH_STOPPED = Event(
    "batch_stopped",
    "0d47ad4b2ef14ed5a9058c4572c94436",
    "queen_rbee.batches",
    logging.WARNING,
    "batch {batch} cannot go on: {reason}",
    "If the quota is reached, the batch has failed, and what is done is in its result file: delete files, or raise\n"
    "ORCHD_FILES_QUOTA_MB. If the disk fails, queen-rbee tries again every 10 s; nothing is lost.",
)

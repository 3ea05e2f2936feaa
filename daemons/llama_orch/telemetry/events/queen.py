"""Events of the queen: nodes, tasks, circuits, drains, her store."""

import logging

from llama_orch.telemetry.events.declaring import declared

TASK_FAILED = declared(
    "task_failed",
    "4d1dd7de07c1437b95d0c57b811008b7",
    "queen_rbee.tasks",
    logging.WARNING,
    "task {job_id} ended with {code}: {reason}",
    "The client has seen the same code. POOL_ID names the pool it ran on, if any.",
)
TASK_ENDED = declared(
    "task_ended",
    "06f3179fec434ae0a6e144cf0b4152c8",
    "queen_rbee.tasks",
    logging.INFO,
    "task {job_id} {state} on pool {pool_id}: {tokens_out} tokens in {decode_ms} ms",
    "Nothing needs to be done.",
)
MODEL_MISMATCH = declared(
    "model_mismatch",
    "abe23aaeaf48463097de77c3d798505a",
    "queen_rbee.catalog",
    logging.ERROR,
    "model {model_id} is not what the catalog says and is served no more: {reason}",
    "The file is damaged or another one, or the digest belongs to another file. Mend either, and then\n"
    "POST /v2/catalog/models/@MODEL_ID@/verify.",
)
STORE_FAILING = declared(
    "store_failing",
    "0a7150122956464389fb0c7ff7ef523f",
    "queen_rbee.store",
    logging.ERROR,
    "the queen's state cannot be stored: {problem}. {hint}",
    "Until it can, new tasks and changes are refused with 503; tasks that are accepted already run on. It is\n"
    "tried again every second; store_working says when it is over. df and findmnt -T tell about the directory\n"
    "(/var/lib/queen-rbee), journalctl -k about the disk.",
)
STORE_WORKING = declared(
    "store_working",
    "4863e4dbc59043bd938c92f8788c314e",
    "queen_rbee.store",
    logging.INFO,
    "the queen's state is stored again in {file}; {lost} records of the meantime were not kept",
    "Nothing needs to be done.",
)
TASKS_RESTORED = declared(
    "tasks_restored",
    "54db34e21f1542b7a8431469520992f7",
    "queen_rbee.store",
    logging.INFO,
    "tasks of the previous run: {waiting} wait again, {ended} ended",
    "Those that ended had a part of their answer shown already (WORKER_RESET, retriable), or their deadline passed.",
)
TASKS_DROPPED = declared(
    "tasks_dropped",
    "53abf5dbce4f4feb9939a84128ba9421",
    "queen_rbee.tasks",
    logging.WARNING,
    "the queue was full: {count} waiting tasks were dropped for newer ones",
    "Their clients have seen QUEUE_FULL_DROP_LRU and when to come again. Where this goes on, more is asked than the\n"
    "pools can do: add slots, or set ORCHD_ADMISSION_POLICY=reject-new to keep what waits.",
)
CIRCUIT_OPENED = declared(
    "circuit_opened",
    "3011678527d545799c494d6d9618e905",
    "queen_rbee.circuits",
    logging.WARNING,
    "pool {pool_id} replica {replica_id} gets no tasks until it passes a health check: {reason}",
    "It refused connections, failed its health check, or failed requests of several clients. It is checked again\n"
    "and again; circuit_closed follows when it passes. See the engine's log and, on a node, that of pool-managerd.",
)
CIRCUIT_CLOSED = declared(
    "circuit_closed",
    "d3f936eac0f345f89178fc92b3ec020e",
    "queen_rbee.circuits",
    logging.INFO,
    "pool {pool_id} replica {replica_id} answers again and gets tasks as before",
    "Nothing needs to be done.",
)
NODE_REGISTERED = declared(
    "node_registered",
    "49a123da7a0644a69718f3205780e885",
    "queen_rbee.fleet",
    logging.INFO,
    "node_registration of {node_id} at {address} accepted (from {peer}, release {version}, {pools} pools)",
    "Nothing needs to be done.",
)
NODE_REFUSED = declared(
    "node_refused",
    "edc25ff113314be3bb016c0fc243aadc",
    "queen_rbee.fleet",
    logging.ERROR,
    "node_registration of {node_id} at {address} (from {peer}) refused: {reason}",
    "Each node needs a POOL_MANAGERD_NODE_ID of its own. Where a machine was replaced or reinstalled, take the old\n"
    "node out with orchctl nodes remove @NODE_ID@; the new one tries again by itself.",
)
NODE_WARNING = declared(
    "node_warning",
    "a8e08963a6be44679f44c67543f6de28",
    "queen_rbee.fleet",
    logging.WARNING,
    "node_registration of {node_id}: {warning}",
    "The node serves; the message says what should be changed, and on which side.",
)
NODE_ONLINE = declared(
    "node_online",
    "5aaabbc63f9741b4901b2c39742ca072",
    "queen_rbee.fleet",
    logging.INFO,
    "node {node_id} sends heartbeats again after {silent_s} s and gets tasks as before",
    "Nothing needs to be done.",
)
NODE_OFFLINE = declared(
    "node_offline",
    "7f9bf404a42e4b448ff60dc9c733bb93",
    "queen_rbee.fleet",
    logging.WARNING,
    "node {node_id} at {address} is offline: no heartbeat for {silent_s} s; its {tasks} tasks go elsewhere or end",
    "The machine, its network or its pool-managerd is down. On the node: systemctl status pool-managerd, and\n"
    "orchctl check. It gets tasks again with its next heartbeat.",
)
NODE_DEREGISTERED = declared(
    "node_deregistered",
    "0d38149387274aecbdae56bafac2d6d3",
    "queen_rbee.fleet",
    logging.INFO,
    "node {node_id} has left: {reason}",
    "A stop of its pool-managerd, or orchctl nodes remove. It comes back by registering again.",
)
DRAIN_STARTED = declared(
    "drain_started",
    "ae3aff7267954508ad029800dddc9e3d",
    "queen_rbee.operations",
    logging.INFO,
    "drain of {target} started: {leases} tasks run there",
    "Nothing new is placed there. orchctl operations shows the progress, orchctl resume undoes it.",
)
DRAIN_ENDED = declared(
    "drain_ended",
    "a27fb467f1f54e329961ef2c4386ea1e",
    "queen_rbee.operations",
    logging.INFO,
    "drain of {target} {state}: {detail}",
    "What is drained stays so until orchctl resume, or until its pool-managerd starts anew.",
)

"""Events of engine-provisioner: engines, and the pools file."""

import logging

from llama_orch.telemetry.events.event import Event

PROVISIONING_STARTED = Event(
    "provisioning_started",
    "5a3c1fbdf9da4bf3a81696a68afe2312",
    "engine_provisioner.pool",
    logging.INFO,
    "provisioning pool {pool_id}: {detail}",
    "The engine and the model are being fetched and checked.",
)
ENGINE_STARTED = Event(
    "engine_started",
    "135d63cf1293424c802a2e8f96fc5ce8",
    "engine_provisioner.pool",
    logging.INFO,
    "engine of pool {pool_id} runs at {url} ({engine} {engine_version}); handoff {file} written",
    "The engine answered its health check and was announced to pool-managerd.",
)
ENGINE_ADOPTED = Event(
    "engine_adopted",
    "a4ea3938d4294c52810915b0875b0b21",
    "engine_provisioner.pool",
    logging.INFO,
    "engine of pool {pool_id} was already running at {url} and is adopted",
    "It was started before this daemon and matches the pools file, so it was left running.",
)
ENGINE_UNLOADED = Event(
    "engine_unloaded",
    "7a783af37aca4c05b9d953ea72b0932c",
    "engine_provisioner.pool",
    logging.INFO,
    "pool {pool_id} is unloaded: its engine was stopped, and its memory is free",
    "The pool was idle, another one needed its memory, or somebody asked for it. A request for its model loads it\n"
    "again.",
)
ENGINE_FAILED = Event(
    "engine_failed",
    "bdfaef428c7d4431b331dab129ea3a7b",
    "engine_provisioner.pool",
    logging.ERROR,
    "pool {pool_id} failed: {last_error}; {next_step}",
    "The engine or its model could not be fetched or started. The message ends with the next step. Log of the\n"
    "engine: journalctl -u llama-engine@@POOL_ID@",
)
ENGINE_RETIRED = Event(
    "engine_retired",
    "0d28e8a77eec44eaa88cbfac0f0079d5",
    "engine_provisioner.clearing",
    logging.INFO,
    "pool {pool_id} was removed from the pools file: its engine was stopped and its announcement withdrawn",
    "No action is required. To restore the pool, add it to the pools file again.",
)
POOL_RELOADED = Event(
    "pool_reloaded",
    "299a9855a0214e82b434eca9d529d1f3",
    "engine_provisioner.pool",
    logging.INFO,
    "pool {pool_id} is reloaded: {detail}",
    "The engine was replaced by one with the pool's present configuration. No action is required.",
)
POOL_RELOAD_FAILED = Event(
    "pool_reload_failed",
    "0010ab58f1cd4c3ab501bbe9f3fd1b68",
    "engine_provisioner.pool",
    logging.ERROR,
    "reload of pool {pool_id} failed: {reason}; {detail}",
    "The pool keeps its former engine and model. Correct the cause, then: orchctl reload @POOL_ID@. If the pools\n"
    "files were edited, they still have what failed, and a restart of engine-provisioner would start that.",
)
POOLS_FILE_REFUSED = Event(
    "pools_file_refused",
    "4260ce86ca964d78ba569ee452a5d423",
    "engine_provisioner.pools_file",
    logging.ERROR,
    "pools file refused: {problems}",
    "The message names file, line and key, and the allowed values. Fix it and start engine-provisioner.\n"
    "See llama-orch-pools(5).",
)
POOLS_FILE_ABSENT = Event(
    "pools_file_absent",
    "44e767f743bb4898ac59157196f119be",
    "engine_provisioner.pools_file",
    logging.WARNING,
    "no pools file at {path}, so nothing to provision; example: {example}",
    "Write one like /usr/share/doc/llama-orch/examples/pools.toml, or run orchctl pool add.\n"
    "On a machine that runs no engines, disable engine-provisioner.",
)
POOLS_RELOADED = Event(
    "pools_reloaded",
    "bb57ff83c0d34674a540f1250920453e",
    "engine_provisioner.pools_file",
    logging.INFO,
    "pools files read again: {changes}",
    "A changed pool is prepared while its engine serves, which is replaced then. Removed pools are stopped, and all\n"
    "others are left alone.",
)
POOLS_RELOAD_REFUSED = Event(
    "pools_reload_refused",
    "35a676b808b844c681a4e679f38cc4a1",
    "engine_provisioner.pools_file",
    logging.ERROR,
    "pools files refused, the former pools stay: {problems}",
    "The message names file, line and key, and the allowed values. Nothing has changed. Fix the file and run\n"
    "systemctl reload engine-provisioner. See llama-orch-pools(5).",
)

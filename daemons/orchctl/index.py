"""The commands in the order of the help, and where each is declared. Generated."""

from orchctl.command_line import CommandEntry

INDEX = (
    CommandEntry("run", "load a model, adding a pool for it if need be, and chat with it", "orchctl.machine.run:RUN"),
    CommandEntry(
        "serve",
        "load a model, adding a pool for it if need be, and print its URL",
        "orchctl.machine.run:SERVE",
    ),
    CommandEntry(
        "check",
        "check queen, token, clocks, versions, nodes, pools and certificates",
        "orchctl.check.check:CHECK",
    ),
    CommandEntry(
        "doctor",
        "check the same, and this machine: units, models, engines, drivers, ports, disks, kernel messages",
        "orchctl.doctor.doctor:DOCTOR",
    ),
    CommandEntry(
        "logs",
        "show what the daemons of this machine logged about a task, a pool or a node",
        "orchctl.journal.logs:LOGS",
    ),
    CommandEntry(
        "events",
        "show the last events of queen-rbee, and with --follow those that come",
        "orchctl.events.events:EVENTS",
    ),
    CommandEntry(
        "config",
        "show the settings of the daemons on this machine, and where each value comes from",
        "orchctl.config.config:CONFIG",
    ),
    CommandEntry(
        "support-bundle",
        "write what helps to find a fault into a file: versions, settings, findings, state, journal; no secrets",
        "orchctl.bundle.support_bundle:SUPPORT_BUNDLE",
    ),
    CommandEntry("status", "show the queen, its tasks and its pools", "orchctl.commands.status:STATUS"),
    CommandEntry("top", "watch nodes, pools, GPUs, the queue and the running tasks live", "orchctl.top.top:TOP"),
    CommandEntry("ps", "show the models that are in memory, and when they are unloaded", "orchctl.commands.ps:PS"),
    CommandEntry("pools", "show the pools and their state", "orchctl.commands.pools:POOLS"),
    CommandEntry(
        "pool",
        "show the pools that are configured on this machine; add and remove pools",
        "orchctl.machine.pool:POOL",
    ),
    CommandEntry("load", "load the model of a pool, and wait until it is ready", "orchctl.commands.loading:LOAD"),
    CommandEntry("unload", "unload the model of a pool once its tasks have ended", "orchctl.commands.loading:UNLOAD"),
    CommandEntry(
        "reload",
        "prepare a pool anew while it serves, then replace its engine",
        "orchctl.machine.reloading:RELOAD",
    ),
    CommandEntry(
        "purge",
        "unload a pool, and remove the files that only it uses from the disk",
        "orchctl.machine.reloading:PURGE",
    ),
    CommandEntry("nodes", "show the GPU machines; show, wake or remove one", "orchctl.commands.nodes:NODES"),
    CommandEntry("gpus", "show the GPUs of all machines; end the fence of one", "orchctl.commands.gpus:GPUS"),
    CommandEntry(
        "drain",
        "stop placing tasks on a pool or node, and wait until those it has are done",
        "orchctl.commands.drain:DRAIN",
    ),
    CommandEntry("resume", "undo a drain: place tasks on the pool or node again", "orchctl.commands.drain:RESUME"),
    CommandEntry(
        "operations",
        "show long-running operations: drains, loads, unloads, reloads and purges",
        "orchctl.commands.operations:OPERATIONS",
    ),
    CommandEntry(
        "capabilities",
        "show the limits and features of pools and engines",
        "orchctl.commands.capabilities:CAPABILITIES",
    ),
    CommandEntry("submit", "run a task and print its output as it arrives", "orchctl.submit.submit:SUBMIT"),
    CommandEntry("chat", "talk to a model; each line of input is a turn", "orchctl.chat.chat:CHAT"),
    CommandEntry(
        "bench",
        "measure the time to the first token and the tokens per second of a model",
        "orchctl.bench.bench:BENCH",
    ),
    CommandEntry("tasks", "show the tasks, newest first, or one task", "orchctl.commands.tasks:TASKS"),
    CommandEntry("cancel", "cancel tasks", "orchctl.commands.cancel:CANCEL"),
    CommandEntry(
        "batch",
        "run the requests of a file when nobody else needs the engines",
        "orchctl.commands.batch:BATCH",
    ),
    CommandEntry("sessions", "show the sessions; show, limit or end one", "orchctl.commands.sessions:SESSIONS"),
    CommandEntry(
        "key",
        "show, add and revoke the keys of users, on the machine of queen-rbee",
        "orchctl.machine.key:KEY",
    ),
    CommandEntry("usage", "show what the keys of users have used", "orchctl.commands.usage:USAGE"),
    CommandEntry(
        "models",
        "show the models that clients may request, or those on this machine's disk",
        "orchctl.commands.models:MODELS",
    ),
    CommandEntry("pull", "fetch a model onto the disk of this machine", "orchctl.commands.pull:PULL"),
    CommandEntry("rm", "remove a model from the disk of this machine", "orchctl.commands.disk_models:RM"),
    CommandEntry(
        "pin",
        "protect a model on the disk from being removed to make room",
        "orchctl.commands.disk_models:PIN",
    ),
    CommandEntry(
        "unpin",
        "let a model on the disk be removed to make room again",
        "orchctl.commands.disk_models:UNPIN",
    ),
    CommandEntry(
        "catalog",
        "manage the model catalog: list, add, show, change, verify",
        "orchctl.commands.catalog:CATALOG",
    ),
    CommandEntry("artifacts", "manage artifacts: list, show, put", "orchctl.commands.artifacts:ARTIFACTS"),
)

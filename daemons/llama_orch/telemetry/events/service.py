"""Events of all daemons: start and stop, sockets, settings, tokens, TLS."""

import logging

from llama_orch.telemetry.events.event import Event

CONFIGURATION_REFUSED = Event(
    "configuration_refused",
    "f3c95789ace14954ac5d6baed2eac902",
    "llama_orch.service",
    logging.ERROR,
    "configuration refused: {problems}",
    "One or more variables are invalid; the message names each and the allowed values. The daemon does not\n"
    "restart by itself. Fix the environment file, check it with\n"
    "  @SYSLOG_IDENTIFIER@ --check-config\n"
    "and start the unit again.",
)
START_FAILED = Event(
    "start_failed",
    "cbf27734ac1045258b66402800e03d2c",
    "llama_orch.service",
    logging.ERROR,
    "cannot start: {problem}. {hint}",
    "The daemon lacks something that it needs to run. The message says what, and how to fix it.",
)
DAEMON_READY = Event(
    "daemon_ready",
    "e0a3a91f23464c13bc27ed12b10877a9",
    "llama_orch.service",
    logging.INFO,
    "{daemon} {version} ready on {address}",
    "All loops of the daemon have started and its sockets accept requests.",
)
SOCKET_DISAGREES = Event(
    "socket_disagrees",
    "f1260ebc7d564b56b714dc919b27dbdf",
    "llama_orch.service",
    logging.WARNING,
    "the {name} socket listens on {actual}, not on {wanted} as set by {variable}. {advice}",
    "The listening socket belongs to systemd. It was created before the environment file changed, or a drop-in\n"
    "of the socket or of the service sets another address. The message names the file and the command.",
)
NON_LOOPBACK_OPEN = Event(
    "non_loopback_without_token",
    "6caf76a5703548ae8280ad3729a6f2e7",
    "llama_orch.service",
    logging.WARNING,
    "listening on {address} without a token: peers from other machines get 403",
    "Only /health, /ready and /v2/meta/ are served to other machines. Set LLORCH_API_TOKEN to serve them, or\n"
    "bind to 127.0.0.1.",
)
TOKEN_REFUSED = Event(
    "token_refused",
    "561dfe41e85141b29c50260d9abd484b",
    "llama_orch.gate",
    logging.WARNING,
    "wrong token from {peer} ({shown}): its requests are refused",
    "Compare the fingerprint with those that the daemon accepts, which it logs at the start:\n"
    "  journalctl -u @SYSLOG_IDENTIFIER@ | grep token_fp6\n"
    "A client or a node with an old token needs the current one; see TOKEN ROTATION in llama-orch(7). This is\n"
    "logged at most once a minute per peer, and 64 times a minute in total.",
)
PAGE_REFUSED = Event(
    "page_refused",
    "8e1bb038c56d4ee08c68c337fcc353ac",
    "llama_orch.gate",
    logging.WARNING,
    "{code}: a request by {source} from {peer} was refused",
    "A browser on this machine sent a request for a web page of another site, or one with a host name that is\n"
    "not this machine's (DNS rebinding). If you trust the page, add its origin to LLORCH_ALLOWED_ORIGINS. If the\n"
    "name belongs to this machine, add it to LLORCH_ALLOWED_HOSTS. See SECURITY in llama-orch(7). This is logged\n"
    "at most once a minute.",
)
HANDSHAKE_FAILED = Event(
    "tls_handshake_failed",
    "7666f371683d4ba48e7806de6240c799",
    "llama_orch.serving",
    logging.WARNING,
    "TLS handshake with {peer} failed: {reason}",
    "A client could not connect to the API. Its URL must begin with https://, and it must trust the CA of this\n"
    "daemon's certificate. If LLORCH_TLS_CA_FILE is set, it must present a certificate of that CA. See TLS in\n"
    "llama-orch(7). This is logged at most once a minute per peer, and 64 times a minute in total.",
)
CONNECTIONS_REFUSED = Event(
    "connections_refused",
    "18c8caa8152346d1bdc435dc1269aadc",
    "llama_orch.serving",
    logging.WARNING,
    "{listener} has {limit} open connections, as many as it may: further clients get 503",
    "The limit is a quarter of the descriptors that the process may open (LimitNOFILE= of the unit). See which\n"
    "clients hold connections with ss -tnp, and have them reuse or close some. This is logged at most once a\n"
    "minute.",
)
CERTIFICATE_ENDING = Event(
    "certificate_ending",
    "bd0d2600a3f84b7497b2b63f4713d27f",
    "llama_orch.tls",
    logging.WARNING,
    "certificate {number} of {path} ({variable}) {end}",
    "After that date nobody accepts it, and the daemons cannot reach each other. Replace it and its key, and\n"
    "run systemctl reload for the daemon; see TLS in llama-orch(7). If it is the old one of two CA certificates,\n"
    "remove it from the file. This is logged at the start, after a reload and once a day.",
)
CERTIFICATE_ENDED = Event(
    "certificate_ended",
    "31080f7cb4f343faa6faa26d78f3888d",
    "llama_orch.tls",
    logging.ERROR,
    "certificate {number} of {path} ({variable}) {end}",
    "Nobody accepts it any longer. Replace it and its key, and run systemctl reload for the\n"
    "daemon; see TLS in llama-orch(7). If it is the old one of two CA certificates, remove it from the file. If\n"
    "the certificate is still valid, the clock of this machine is wrong: timedatectl",
)
SECOND_TOKEN_SAME = Event(
    "second_token_same",
    "4f633f920b40449d87bbab64b58b8ea1",
    "llama_orch.service",
    logging.WARNING,
    "LLORCH_API_TOKEN_SECOND is the same as LLORCH_API_TOKEN ({token}): no other token is accepted",
    "During a rotation the two tokens are the old and the new one: see TOKEN ROTATION in llama-orch(7). Otherwise\n"
    "remove the second token.",
)
NO_EFFECT = Event(
    "settings_without_effect",
    "3f0c9931918c40bf9670c342c6cce996",
    "llama_orch.service",
    logging.INFO,
    "these variables are set but have no effect in {profile}: {variables}",
    "They belong to the other profile. No action is required.",
)
UNKNOWN_VARIABLES = Event(
    "settings_unknown",
    "33138eccb4844d4b872ab33f8fb5f160",
    "llama_orch.service",
    logging.WARNING,
    "no daemon knows these variables, which may be misspelt and have no effect: {variables}",
    "The names look like variables of llama-orch, but no daemon has them. Correct or remove them in\n"
    "/etc/llama-orch/@SYSLOG_IDENTIFIER@.env; @SYSLOG_IDENTIFIER@.env(5) lists all variables.",
)
TRACES_FAIL = Event(
    "traces_fail",
    "de0675d473b24991987adbed9352566f",
    "llama_orch.tracing",
    logging.WARNING,
    "traces do not reach the collector {endpoint}: {reason}",
    "Requests are served as before. Spans wait for the collector, 2,048 at most; further ones are dropped and\n"
    "counted in llama_orch_spans_dropped_total. Check that the collector runs, and the OTEL_ variables in\n"
    "@SYSLOG_IDENTIFIER@.env(5): a port other than 4318 stands for gRPC. Logged once until it works again.",
)
TRACES_RESUMED = Event(
    "traces_resumed",
    "f19dcd1731634f909c90454c29c96132",
    "llama_orch.tracing",
    logging.INFO,
    "traces reach the collector {endpoint} again; {dropped} spans have been dropped since the start",
    "No action is required.",
)
DAEMON_STOPPING = Event(
    "daemon_stopping",
    "23cc390c935440e38e1f39485d23d1f3",
    "llama_orch.service",
    logging.INFO,
    "{daemon} is stopping: {detail}",
    "A graceful stop: no new requests are accepted, running ones may finish within the drain limit.",
)
CONFIGURATION_RELOADED = Event(
    "configuration_reloaded",
    "97ab19d82f244a7cb01f79927f9f8010",
    "llama_orch.service",
    logging.INFO,
    "{daemon} has reloaded its configuration: {applied}",
    "The message says what was applied. New connections use new certificates, and existing ones go on with those\n"
    "that they began with. Changes that were refused, and those that need a restart, are logged separately.",
)
RELOAD_REFUSED = Event(
    "reload_refused",
    "c2dd96ecf6a84e1f8525c113b0774f3a",
    "llama_orch.service",
    logging.ERROR,
    "the new configuration is refused, the former one stays: {problem}",
    "The message says what is wrong and what is allowed. The daemon goes on as before, but would not start with\n"
    "this. Fix it and run\n"
    "  systemctl reload @SYSLOG_IDENTIFIER@",
)
RELOAD_NEEDS_RESTART = Event(
    "reload_needs_restart",
    "3ae677304c8b41a9af601caaf06f9a05",
    "llama_orch.service",
    logging.WARNING,
    "these changed variables have no effect before {daemon} is restarted: {variables}",
    "A reload applies RUST_LOG, the contents of the TLS files and the pools files. For all else, tokens included:\n"
    "  systemctl restart @SYSLOG_IDENTIFIER@\n"
    "A restart loses no request: the sockets stay open. A changed address also needs the commands at the top of\n"
    "/etc/llama-orch/@SYSLOG_IDENTIFIER@.env.",
)

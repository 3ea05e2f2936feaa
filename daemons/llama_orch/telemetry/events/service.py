"""Events that every daemon has: start and stop, sockets, settings, tokens, TLS."""

import logging

from llama_orch.telemetry.events.declaring import declared

CONFIGURATION_REFUSED = declared(
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
START_FAILED = declared(
    "start_failed",
    "cbf27734ac1045258b66402800e03d2c",
    "llama_orch.service",
    logging.ERROR,
    "cannot start: {problem}. {hint}",
    "The daemon could not get something that it needs to run. The message says what and how to mend it.",
)
DAEMON_READY = declared(
    "daemon_ready",
    "e0a3a91f23464c13bc27ed12b10877a9",
    "llama_orch.service",
    logging.INFO,
    "{daemon} {version} ready on {address}",
    "All loops of the daemon have started and its sockets answer.",
)
SOCKET_DISAGREES = declared(
    "socket_disagrees",
    "f1260ebc7d564b56b714dc919b27dbdf",
    "llama_orch.service",
    logging.WARNING,
    "the {name} socket listens on {actual}, which counts, but {variable} says {wanted}. {advice}",
    "The listening socket belongs to systemd. It was set up before the environment file changed, or a drop-in\n"
    "of the socket or of the service has another address. The message has the file and the command.",
)
NON_LOOPBACK_OPEN = declared(
    "non_loopback_without_token",
    "6caf76a5703548ae8280ad3729a6f2e7",
    "llama_orch.service",
    logging.WARNING,
    "listening on {address} without a token: peers from other machines get 403",
    "Only /health, /ready and /v2/meta/ are served to other machines. Set LLORCH_API_TOKEN to serve them, or\n"
    "bind to 127.0.0.1.",
)
TOKEN_REFUSED = declared(
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
PAGE_REFUSED = declared(
    "page_refused",
    "8e1bb038c56d4ee08c68c337fcc353ac",
    "llama_orch.gate",
    logging.WARNING,
    "{code}: a request by {source} from {peer} is refused",
    "A browser on this machine sent a request that a web page of another site had made, or one under a name that\n"
    "is not this machine's (DNS rebinding). If you trust the page, add its origin to LLORCH_ALLOWED_ORIGINS; if\n"
    "the name is this machine's, add it to LLORCH_ALLOWED_HOSTS. See SECURITY in llama-orch(7). There is at most\n"
    "one such line a minute.",
)
HANDSHAKE_FAILED = declared(
    "tls_handshake_failed",
    "7666f371683d4ba48e7806de6240c799",
    "llama_orch.serving",
    logging.WARNING,
    "no TLS with {peer}: {reason}",
    "A peer wanted to speak to the API and could not. Its URL must begin with https://, it must accept the CA\n"
    "of this daemon's certificate, and show a certificate of the CA in LLORCH_TLS_CA_FILE where that is set;\n"
    "see TLS in llama-orch(7). There is at most one such line a minute for each peer, and 64 for all of them.",
)
CERTIFICATE_ENDING = declared(
    "certificate_ending",
    "bd0d2600a3f84b7497b2b63f4713d27f",
    "llama_orch.tls",
    logging.WARNING,
    "certificate {number} of {path} ({variable}) {end}",
    "From then on nobody accepts it, and the daemons do not reach each other. Put a new one in its place, with\n"
    "its key, and restart the daemon, which reads its files at the start only; see TLS in llama-orch(7). Of a CA\n"
    "that has a successor, the old one is taken out of the file. There is one such line at the start and one a day.",
)
CERTIFICATE_ENDED = declared(
    "certificate_ended",
    "31080f7cb4f343faa6faa26d78f3888d",
    "llama_orch.tls",
    logging.ERROR,
    "certificate {number} of {path} ({variable}) {end}",
    "Nobody accepts it any more. Put a new one in its place, with its key, and restart the daemon, which reads\n"
    "its files at the start only; see TLS in llama-orch(7). Of a CA that has a successor, the old one is taken out\n"
    "of the file. Where the certificate is good, this machine's clock is wrong: timedatectl",
)
SECOND_TOKEN_SAME = declared(
    "second_token_same",
    "4f633f920b40449d87bbab64b58b8ea1",
    "llama_orch.service",
    logging.WARNING,
    "LLORCH_API_TOKEN_SECOND is the same as LLORCH_API_TOKEN ({token}): no other token is accepted",
    "In a rotation the second token is the other one of the old and the new: see TOKEN ROTATION in\n"
    "llama-orch(7). Where none is under way, remove it.",
)
NO_EFFECT = declared(
    "settings_without_effect",
    "3f0c9931918c40bf9670c342c6cce996",
    "llama_orch.service",
    logging.INFO,
    "these variables are set but have no effect in {profile}: {variables}",
    "They belong to the other profile. Nothing needs to be done.",
)
UNKNOWN_VARIABLES = declared(
    "settings_unknown",
    "33138eccb4844d4b872ab33f8fb5f160",
    "llama_orch.service",
    logging.WARNING,
    "no daemon knows these variables, which may be misspelt and have no effect: {variables}",
    "The names look like variables of llama-orch and are none of any daemon's. Correct or remove them in\n"
    "/etc/llama-orch/@SYSLOG_IDENTIFIER@.env; @SYSLOG_IDENTIFIER@.env(5) has all that there are.",
)
DAEMON_STOPPING = declared(
    "daemon_stopping",
    "23cc390c935440e38e1f39485d23d1f3",
    "llama_orch.service",
    logging.INFO,
    "{daemon} is stopping: {detail}",
    "A graceful stop: nothing new is taken, what runs may end within the drain limit.",
)

"""orchctl key: add, list and revoke the keys of users, in keys.toml of this machine."""

import argparse
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from llama_orch.contracts.keys import USAGE_PATH, KeyEndpoint, KeyList, KeySpec, KeyView, UsageList
from llama_orch.contracts.service_reloads import RELOAD_PATH
from llama_orch.contracts.validation import invalid_fields
from llama_orch.files.toml_lines import locate
from llama_orch.keys.editing import with_key, without_table
from llama_orch.keys.keys_file import FORMS, VARIABLE, KeysFileError, parse
from llama_orch.keys.secret_keys import digest, new_secret
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, parse_response
from orchctl.command import CliCommand, ListedValues, argument, identifier
from orchctl.errors import CommandError
from orchctl.lists import LIST_ARGUMENTS, print_one
from orchctl.locations import UNIX
from orchctl.machine.keys_file import KeysText, change_keys, keys_path, read_keys
from orchctl.output import print_note, write, write_json
from orchctl.tables import UNKNOWN, format_table

LIMITS = ("concurrency", "requests_per_minute", "tokens_per_minute", "tokens_per_day", "tokens_total")
OPTIONS = ("models", "endpoints", "priority", "weight", "expires", *LIMITS)
HEADER = ("KEY", "WEIGHT", "PRIORITY", "MODELS", "ENDPOINTS", "LIMITS", "EXPIRES")


async def list_keys(options: argparse.Namespace, queen: QueenClient) -> None:
    """List the keys of the file. Raises CommandError."""
    found = read_keys(keys_path(options.file))
    listed = KeyList(keys=[KeyView.model_validate(key.model_dump()) for key in found.keys])
    body = listed.model_dump_json(exclude_none=True).encode()
    print_one(options, body, KeyList, format_keys, lambda every: (key.name for key in every.keys))


def format_keys(listed: KeyList) -> str:
    """Format a row for each key."""
    if not listed.keys:
        return "no user has a key; orchctl key add NAME adds one"
    return format_table([HEADER, *map(_row, listed.keys)])


def _row(key: KeyView) -> tuple[str, ...]:
    limits = (f"{getattr(key, name)} {name.replace('_', ' ')}" for name in LIMITS if getattr(key, name) is not None)
    return (
        key.name,
        str(key.weight),
        key.priority,
        ", ".join(key.models or ("all",)),
        ", ".join(key.endpoints or ("all",)),
        ", ".join(limits) or UNKNOWN,
        key.expires.isoformat(timespec="minutes") if key.expires else UNKNOWN,
    )


async def add(options: argparse.Namespace, queen: QueenClient) -> None:
    """Add a key, print its secret, and have queen-rbee reload the file. Raises CommandError."""
    secret, path = new_secret(), keys_path(options.file)
    key = key_of(options, secret)
    change_keys(path, partial(_added, key, path))
    if options.json:
        write_json({"name": key.name, "secret": secret, "file": str(path)})
    else:
        write(f"{secret}\n")
        print_note(f"the secret of {key.name} is shown only now; {path} has its digest")
    await _apply(queen, path, key.name, exists=True)


def key_of(options: argparse.Namespace, secret: str) -> KeySpec:
    """Return the key that the options describe. Raises CommandError with every problem."""
    given = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
    try:
        return KeySpec.model_validate({"name": options.name, "sha256": digest(secret), **given})
    except ValidationError as error:
        found = [
            f"{each.location[0]}: {f'must {FORMS[name]}' if (name := str(each.location[0])) in FORMS else each.text}"
            for each in invalid_fields(error)
        ]
        raise CommandError("\n".join(dict.fromkeys(found)), "See llama-orch-keys(5).", ExitStatus.USAGE) from error


def _added(key: KeySpec, path: Path, found: KeysText) -> str:
    if found.key(key.name):
        hint = f"To give it another secret: orchctl key revoke {key.name}, then add it again; or edit {path}."
        raise CommandError(f"there is a key {key.name} already", hint, ExitStatus.DATA)
    return with_key(found.text, key)


async def revoke(options: argparse.Namespace, queen: QueenClient) -> None:
    """Remove a key from the file, and have queen-rbee reload it. Raises CommandError."""
    path = keys_path(options.file)
    change_keys(path, partial(_revoked, options.name, path))
    if options.json:
        write_json({"name": options.name, "file": str(path)})
    else:
        write(f"the key {options.name} is removed from {path}\n")
    await _apply(queen, path, options.name, exists=False)


def _revoked(name: str, path: Path, found: KeysText) -> str:
    index = next((index for index, key in enumerate(found.keys) if key.name == name), None)
    if index is None:
        known = ", ".join(key.name for key in found.keys[:20]) or "none"
        raise CommandError(f"there is no key {name} in {path}", f"Keys: {known}.", ExitStatus.NO_INPUT)
    rest = (*found.keys[:index], *found.keys[index + 1 :])
    text = without_table(found.text, locate(found.text.replace("\r\n", "\n")).get(("keys", index), 1))
    try:
        removed = parse(text.encode(), path) == rest
    except KeysFileError:
        removed = False
    if not removed:  # an array of inline tables, say
        hint = "Each key needs a table [[keys]] of its own. Nothing has changed: remove the key in an editor."
        raise CommandError(f"the key {name} cannot be removed from {path} alone", hint, ExitStatus.DATA)
    return text


async def _apply(queen: QueenClient, path: Path, name: str, *, exists: bool) -> None:
    """Have queen-rbee of this machine reload the file, and check that it did. Raises CommandError."""
    if not queen.url.startswith(UNIX):
        print_note("to apply it, if queen-rbee runs: systemctl reload queen-rbee")
        return
    try:
        await queen.call("POST", RELOAD_PATH)
    except CommandError as error:
        if error.status is ExitStatus.UNAVAILABLE:
            print_note("queen-rbee does not run; it reads the file when it starts")
            return
        raise
    listed = parse_response(UsageList, await queen.get(USAGE_PATH))
    if any(each.key == name for each in listed.keys) != exists:
        hint = f"It reads the file of {VARIABLE}, or a credential keys.toml: see orchctl config queen-rbee."
        raise CommandError(f"{path} is changed, but queen-rbee reads its keys from elsewhere", hint, ExitStatus.CONFIG)


def words(text: str) -> list[str]:
    """Words separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def expiry(text: str) -> datetime:
    """A date or time as in ISO 8601, UTC unless it says otherwise, or a number of days as in 90d."""
    if text.endswith("d") and text[:-1].isdigit() and len(text) <= 6:
        return datetime.now(UTC).replace(microsecond=0) + timedelta(days=int(text[:-1]))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid time: {text!r} (examples: 2027-01-31, 90d)") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


FILE = argument(
    "--file", metavar="FILE", help=f"the file of keys (default: ${VARIABLE}, or the packaged one)", completion="files"
)
ADD = CliCommand(
    "add",
    "add a key and print its secret, once",
    add,
    [
        argument("name", type=identifier, metavar="NAME", help="name of the key, such as that of its user"),
        argument(
            "--models", type=words, metavar="LIST", help="models that it permits, with * as in small-* (default: all)"
        ),
        argument(
            "--endpoints",
            type=words,
            metavar="LIST",
            help=f"what it permits, of {', '.join(get_args(KeyEndpoint))} (default: all)",
        ),
        argument(
            "--priority", choices=["interactive", "batch"], help="the highest that it permits (default: interactive)"
        ),
        argument("--weight", type=int, metavar="N", help="share of the slots beside others (default: 1)"),
        argument("--concurrency", type=int, metavar="N", help="tasks that may wait or run at once"),
        argument("--requests-per-minute", type=int, metavar="N", help="requests a minute"),
        argument("--tokens-per-minute", type=int, metavar="N", help="tokens of prompts and answers a minute"),
        argument("--tokens-per-day", type=int, metavar="N", help="tokens of prompts and answers a day, UTC"),
        argument("--tokens-total", type=int, metavar="N", help="tokens of prompts and answers altogether"),
        argument(
            "--expires", type=expiry, metavar="TIME", help="when it expires, such as 2027-01-31 or 90d (days from now)"
        ),
        FILE,
    ],
)
REVOKE = CliCommand(
    "revoke",
    "remove a key; its secret opens nothing any more",
    revoke,
    [
        argument("name", type=identifier, metavar="NAME", help="name of the key", completion=ListedValues("key")),
        FILE,
    ],
)
LIST = CliCommand("list", "show the keys", list_keys, [FILE, *LIST_ARGUMENTS])
KEY = CliCommand(
    "key",
    "show, add and revoke the keys of users, on the machine of queen-rbee",
    list_keys,
    [FILE, *LIST_ARGUMENTS],
    [ADD, LIST, REVOKE],
)

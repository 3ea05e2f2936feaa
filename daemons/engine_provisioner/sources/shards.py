"""Models in several files: NAME-00001-of-00003.gguf and its siblings. The engine opens the first. Pure."""

import re

SHARD = re.compile(r"(?P<stem>.+)-(?P<index>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.IGNORECASE)
COUNT_LIMIT = 1000


def all_parts(name: str) -> list[str]:
    """Return the names or paths of all files of a model, in order: only `name` if it is not the first of several."""
    first = SHARD.fullmatch(name)
    if first is None or int(first["index"]) != 1:
        return [name]
    return [shard_name(first["stem"], index, int(first["count"])) for index in range(1, count_of(name) + 1)]


def count_of(name: str) -> int:
    """Return how many files the model of a shard has, at most COUNT_LIMIT; 1 for other names."""
    match = SHARD.fullmatch(name)
    return min(int(match["count"]), COUNT_LIMIT) if match else 1


def shard_name(stem: str, index: int, count: int) -> str:
    """Return the name of the shard with the number `index`, from 1 to `count`."""
    return f"{stem}-{index:05d}-of-{count:05d}.gguf"

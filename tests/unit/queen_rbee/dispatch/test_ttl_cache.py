"""The cache computes a value once per version of its source, and not more often than its minimum age allows."""

from queen_rbee.dispatch.ttl_cache import TtlCache


class Source:
    """A source of values, its version, and a clock."""

    def __init__(self, *, min_age_s: float = 0.0, max_entries: int = 10) -> None:
        self.version = 0
        self.now = 0.0
        self.computed: list[str] = []
        self.cache: TtlCache[str, int] = TtlCache(
            self.compute,
            version=lambda: self.version,
            min_age_s=lambda: min_age_s,
            max_entries=max_entries,
            clock=lambda: self.now,
        )

    def compute(self, key: str) -> int:
        self.computed.append(key)
        return self.version


def test_value_is_computed_once_per_version():
    source = Source()
    assert [source.cache.get("a"), source.cache.get("a")] == [0, 0]
    source.version = 1
    assert source.cache.get("a") == 1
    assert source.computed == ["a", "a"]


def test_old_value_is_returned_until_the_minimum_age():
    source = Source(min_age_s=1.0)
    source.cache.get("a")
    source.version = 1
    source.now = 0.5
    assert source.cache.get("a") == 0
    source.now = 1.0
    assert source.cache.get("a") == 1


def test_entries_are_bounded():
    source = Source(max_entries=3)
    for number in range(20):
        source.cache.get(str(number))
        assert len(source.cache) <= 4

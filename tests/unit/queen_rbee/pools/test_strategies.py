"""Registering a placement strategy is enough to configure, document and use it."""

import importlib.util
from types import ModuleType

import pytest

from llama_orch.settings.loading import ConfigurationError
from queen_rbee import settings
from queen_rbee.pools import strategies
from queen_rbee.pools.candidates import Demand
from queen_rbee.pools.placement import pick
from queen_rbee.pools.strategies import STRATEGIES, PlacementStrategy
from tests.unit.queen_rbee.pools.test_placement import candidate

VARIABLE = "ORCHESTRATORD_PLACEMENT_STRATEGY"


def load_copy(module: ModuleType) -> ModuleType:
    """Execute the module's source again, without replacing the imported module."""
    assert module.__spec__ is not None
    assert module.__spec__.origin is not None
    spec = importlib.util.spec_from_file_location("copy_of_module", module.__spec__.origin)
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


@pytest.fixture
def last_first(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register a strategy that takes the last open replica."""
    strategy = PlacementStrategy(lambda candidates, _turn: candidates[-1], "the last replica")
    monkeypatch.setitem(STRATEGIES, "last-first", strategy)
    monkeypatch.setattr(strategies, "StrategyName", strategies.strategy_names())
    return "last-first"


def test_registered_strategy_is_used_by_placement(last_first: str):
    replicas = [candidate(replica_id=f"r{number}") for number in range(3)]
    assert pick(replicas, Demand(), last_first, 0) is replicas[-1]


def test_registered_strategy_is_a_choice_of_the_setting(last_first: str):
    fresh = load_copy(settings).QueenSettings
    assert fresh.load({VARIABLE: last_first}).placement == last_first
    variable = fresh.variables()["placement"]
    assert last_first in variable.allowed
    assert "last-first takes the last replica." in variable.more


def test_unregistered_strategy_is_refused():
    with pytest.raises(ConfigurationError, match="round-robin, least-loaded or random"):
        settings.QueenSettings.load({VARIABLE: "last-first"})


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_documented(name: str):
    variable = settings.QueenSettings.variables()["placement"]
    assert name in variable.allowed
    assert f"{name} takes " in variable.more

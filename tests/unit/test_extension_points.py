"""A new setting, event or metric is declared once, and all that is derived from it follows.

Routes, engine kinds, provisioning modes, strategies and commands have such a test in the folder of their declaration.
"""

import logging
import runpy
from typing import Annotated

import pytest
from prometheus_client import Counter, generate_latest
from pydantic import Field

from llama_orch.settings import Integer, Var
from llama_orch.telemetry.events import catalog, queen
from llama_orch.telemetry.events.event import Event
from queen_rbee.metrics import Metrics
from queen_rbee.settings import QueenSettings
from tools.generate import journal_catalog
from tools.generating.documents import environment_file
from tools.generating.manual import manual_page


class ExtendedSettings(QueenSettings):
    dummy: Annotated[Integer, Var("ORCHD_DUMMY", "A dummy setting.", example="7", addition=True), Field(ge=1, le=9)] = 5


def test_new_setting_is_parsed_shown_and_documented() -> None:
    assert ExtendedSettings.load({"ORCHD_DUMMY": "7"}).dummy == 7
    shown = {name: (value, source) for name, value, source in ExtendedSettings.load({}).effective({})}
    assert shown["ORCHD_DUMMY"] == ("5", "default")
    for document in (
        environment_file("queen-rbee", ExtendedSettings),
        manual_page("queen-rbee", ExtendedSettings, "1", "2026-01-01"),
    ):
        assert "A dummy setting." in document
        assert "1 to 9" in document


def test_new_event_is_in_the_journal_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    dummy = Event("dummy_seen", "0" * 32, "queen_rbee.tasks", logging.INFO, "dummy {number}", "Ignore it.")
    monkeypatch.setattr(queen, "DUMMY_SEEN", dummy, raising=False)
    events = runpy.run_path(str(catalog.__file__))["CATALOG"]
    assert dummy in events
    assert "Ignore it." in journal_catalog(events)


class ExtendedMetrics(Metrics):
    def __init__(self) -> None:
        super().__init__()
        self.dummies = Counter("orchd_dummies_total", "Dummies.", registry=self.registry)


def test_new_metric_is_exported() -> None:
    assert b"# HELP orchd_dummies_total Dummies." in generate_latest(ExtendedMetrics().registry)

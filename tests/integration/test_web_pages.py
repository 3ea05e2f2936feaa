"""In a real browser, foreign web pages cannot use daemons without a token, and allowed pages can."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.fixtures import skip_or_fail
from tests.integration.browser import Site, chromium, site, text_of, visit
from tests.integration.two_daemons import TwoDaemons, two_daemons
from tests.unit.llama_orch.spool.samples import publish

TASK = '{"prompt": "drive-by", "workload": "completion", "max_tokens": 1}'
ATTACK = """
const queen = 'http://127.0.0.1:%(queen)s', manager = 'http://127.0.0.1:%(manager)s'
const metrics = 'http://127.0.0.1:%(metrics)s'
const task = %(task)r, chat = '{"messages": [{"role": "user", "content": "x"}]}'
const json = {'content-type': 'application/json'}
async function attempt(url, options) {
  try { const answer = await fetch(url, options); return [answer.type, answer.status, await answer.text()] }
  catch (error) { return ['blocked', 0, error.name] }
}
async function attack() {
  const simple = {method: 'POST', mode: 'no-cors', headers: {'content-type': 'text/plain'}}
  const found = {
    task: await attempt(queen + '/v2/tasks', {...simple, body: task}),
    chat: await attempt(queen + '/v1/chat/completions', {...simple, body: chat}),
    catalog: await attempt(queen + '/v2/catalog/models', {...simple, body: '{"id": "x", "model_ref": "hf:a/b"}'}),
    drain: await attempt(manager + '/v2/pools/default/drain', {...simple, body: '{"deadline_ms": 0}'}),
    list: await attempt(queen + '/v2/tasks'),
    engine: await attempt(manager + '/v2/pools/default/engine/props'),
    scrape: await attempt(metrics + '/metrics'),
    preflighted: await attempt(queen + '/v2/tasks', {method: 'POST', headers: json, body: task}),
  }
  const form = document.createElement('form'), frame = document.createElement('iframe')
  frame.name = 'sink'; form.target = 'sink'; form.method = 'POST'; form.enctype = 'text/plain'
  form.action = queen + '/v2/tasks'
  const field = document.createElement('input')
  field.name = task.slice(0, -1) + ', "stop": ["'; field.value = '"]}'
  form.append(field); document.body.append(frame, form)
  const image = new Image()
  frame.onload = () => { image.src = queen + '/metrics' }
  image.onerror = image.onload = () => report(found)
  form.submit()
}
attack()
"""
ALLOWED_REQUEST = """
async function use() {
  const answer = await fetch('http://127.0.0.1:%(queen)s/v2/tasks', {
    method: 'POST', body: '{}',
    headers: {'content-type': 'application/json', 'x-correlation-id': 'from-a-page', 'x-stainless-os': 'x'},
  })
  report([answer.status, answer.headers.get('x-correlation-id'), (await answer.json()).code])
}
use()
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if chromium() is None:
        skip_or_fail("chromium is not here (apt install chromium)")
    with site() as opened:
        yield opened


@pytest.fixture(scope="module")
def daemons(page: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoDaemons]:
    allowed = f"http://friend.example:{page.port}"
    with two_daemons(tmp_path_factory.mktemp("daemons"), LLORCH_ALLOWED_ORIGINS=allowed) as running:
        publish(running.directory / "engines")
        running.until(running.pool)
        assert not draining(running)
        yield running


def draining(daemons: TwoDaemons) -> bool:
    return bool(daemons.ask("GET", "/v2/pools/default/status", port=daemons.manager_port)[1]["draining"])


def script_variables(daemons: TwoDaemons) -> dict[str, object]:
    metrics = next(listener.address for listener in daemons.listeners if listener.name == "queen-rbee metrics")
    return {"queen": daemons.queen_port, "manager": daemons.manager_port, "metrics": metrics, "task": TASK}


@pytest.mark.parametrize("name", ["evil.example", "localhost"])
def test_foreign_page_cannot_change_or_read_anything(
    page: Site, daemons: TwoDaemons, tmp_path: Path, name: str
) -> None:
    found = visit(page, name, ATTACK % script_variables(daemons), tmp_path)
    assert {attempt for attempt, (kind, _status, _text) in found.items() if kind == "opaque"} <= {
        "task", "chat", "catalog", "drain"
    }  # fmt: skip
    assert {found[attempt][0] for attempt in ("list", "engine", "scrape", "preflighted")} == {"blocked"}
    assert daemons.ask("GET", "/v2/tasks")[1]["tasks"] == [], "no task was submitted"
    assert daemons.ask("GET", "/v2/catalog/models/x")[0] == 404
    assert not draining(daemons)
    assert "FORBIDDEN_ORIGIN: a request by http" in daemons.logs()


def test_rebound_name_reads_nothing(page: Site, daemons: TwoDaemons, tmp_path: Path) -> None:
    assert page.port
    for port, path in ((daemons.queen_port, "/v2/tasks"), (daemons.manager_port, "/v2/pools")):
        text = text_of(f"http://rebound.example:{port}{path}", tmp_path)
        assert "FORBIDDEN_HOST" in text
    assert "tasks" in text_of(f"http://localhost:{daemons.queen_port}/v2/tasks", tmp_path), "a person may look"


def test_allowed_page_uses_api_with_preflight(page: Site, daemons: TwoDaemons, tmp_path: Path) -> None:
    status, identifier, code = visit(page, "friend.example", ALLOWED_REQUEST % script_variables(daemons), tmp_path)
    assert (status, identifier, code) == (400, "from-a-page", "INVALID_PARAMS")

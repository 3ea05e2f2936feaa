"""The page in Debian's Chromium: every button, the token, a lost connection, 1,000 pools, accessibility, screenshots.

LLAMA_ORCH_SCREENSHOTS=DIRECTORY writes the screenshots of the README there.
"""

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from llama_orch import VERSION
from tests.engines.fixtures import skip_or_fail
from tests.engines.llama_server import Archive
from tests.gpus.imitation import ImitatedDriver
from tests.integration.browser import chromium
from tests.integration.home import Home
from tests.integration.page_home import TOKEN, page_home

WITHIN_MS = 60_000
SERIOUS = ("serious", "critical")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")

expect.set_options(timeout=WITHIN_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = chromium() or skip_or_fail("chromium is not here (apt install chromium)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=[*FLAGS], timeout=WITHIN_MS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def machine(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, slow_model: Path
) -> Iterator[tuple[Home, ImitatedDriver]]:
    with page_home(tmp_path_factory.mktemp("page"), llama_server_tar, slow_model) as (home, driver):
        home.until(lambda: states(home) == {"main": "ready", "spare": "unloaded"})
        yield home, driver


@pytest.fixture
def home(machine: tuple[Home, ImitatedDriver]) -> Home:
    return machine[0]


@pytest.fixture
def page(browser: Browser, home: Home) -> Iterator[Page]:
    """The page with the token. The test fails if the page logs an error, or loads anything from elsewhere."""
    with browser.new_context(viewport=DESKTOP) as context:  # type: ignore[arg-type]
        opened = context.new_page()
        opened.set_default_timeout(WITHIN_MS)
        problems: list[str] = []
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on("console", lambda line: problems.append(line.text) if "Content Security" in line.text else None)
        opened.on("request", lambda each: None if each.url.startswith(home.url) else problems.append(each.url))
        opened.goto(f"{home.url}/")
        enter_token(opened)
        yield opened
        assert problems == []


def enter_token(page: Page, token: str = TOKEN) -> None:
    page.get_by_role("textbox", name="Token").fill(token)
    page.get_by_role("button", name="Use it").click()
    if token == TOKEN:
        expect(page.get_by_role("status")).to_have_text("Live")


def states(home: Home) -> dict[str, str]:
    _status, answer = home.ask("GET", "/v2/pools")
    return {pool["pool_id"]: pool["state"] for pool in (answer or {}).get("pools", ())}


def section(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def row(page: Page, name: str, text: str) -> Locator:
    """Return the row with a cell of this text, in the first table of a section."""
    cell = page.get_by_role("cell", name=text, exact=True)
    return section(page, name).get_by_role("table").first.get_by_role("row").filter(has=cell)


def press(page: Page, name: str) -> None:
    """Press a button with the keyboard, as its focus allows."""
    button = page.get_by_role("button", name=name, exact=True)
    expect(button).to_be_enabled()
    button.focus()
    page.keyboard.press("Enter")


def answer(page: Page, verb: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=verb, exact=True).click()


def submit(home: Home, **request: Any) -> str:
    body = {"prompt": "the river", "max_tokens": 1900, "placement": {"mode": "pin", "pin_pool_id": "main"}, **request}
    status, accepted = home.ask("POST", "/v2/tasks", body)
    assert status == 202, accepted
    return str(accepted["task_id"])


def state_of(home: Home, task_id: str) -> str:
    return str(home.ask("GET", f"/v2/tasks/{task_id}")[1]["state"])


def serious_findings(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {[node['target'] for node in each['nodes']]}" for each in found if each["impact"] in SERIOUS
    ]


def test_token_is_asked_for_and_not_stored(browser: Browser, home: Home) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{home.url}/")
        enter_token(page, "wrong")
        expect(page.get_by_role("alert")).to_have_text("the token is not valid")
        enter_token(page)
        stored = page.evaluate("JSON.stringify([localStorage.length, sessionStorage.length, document.cookie])")
        assert (stored, context.cookies()) == ('[0,0,""]', [])
        assert TOKEN not in page.url
        page.reload()
        expect(page.get_by_role("dialog", name="Token")).to_be_visible()


def test_refused_token_is_asked_for_again(page: Page) -> None:
    page.get_by_role("textbox", name="Message").fill("half a thought")
    page.route("**/v2/pools/main/drain", lambda route: route.fulfill(status=401, json={"message": "it has expired"}))
    press(page, "Drain main")
    answer(page, "Drain")
    expect(page.get_by_role("dialog", name="Token")).to_contain_text("it has expired")
    enter_token(page)
    expect(page.get_by_role("textbox", name="Message")).to_have_value("half a thought")
    page.get_by_role("button", name="Forget the token").click()
    expect(page.get_by_role("dialog", name="Token")).to_be_visible()


def test_buttons_of_pools_load_unload_and_drain(page: Page, home: Home) -> None:
    press(page, "Load spare")
    expect(row(page, "Pools", "spare")).to_contain_text("ready")
    expect(page.get_by_role("row").filter(has_text="it is loaded")).to_be_visible()
    press(page, "Unload spare")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    press(page, "Unload spare")
    answer(page, "Unload")
    expect(row(page, "Pools", "spare")).to_contain_text("unloaded")
    press(page, "Drain main")
    answer(page, "Drain")
    expect(row(page, "Pools", "main")).to_contain_text("draining")
    home.until(lambda: states(home)["main"] == "draining")
    press(page, "Resume main")
    expect(row(page, "Pools", "main")).to_contain_text("ready")
    home.until(lambda: states(home) == {"main": "ready", "spare": "unloaded"})


@pytest.mark.parametrize(("action", "label"), [("reload", "Reload"), ("purge", "Purge")])
def test_buttons_of_other_actions_follow_the_release(page: Page, home: Home, action: str, label: str) -> None:
    """The page offers what the stream lists, and sends what the API takes."""
    page.route("**/v2/events", lambda route: route.fulfill(body=stream_with(action), content_type="text/event-stream"))
    sent: list[tuple[str, Any]] = []

    def accept(route: Any) -> None:
        sent.append((route.request.method, route.request.post_data_json))
        route.fulfill(status=202, json={})

    page.route(f"**/v2/pools/main/{action}", accept)
    page.reload()
    expect(page.get_by_role("button", name="Unload main")).to_be_disabled()
    press(page, f"{label} main")
    if action == "reload":
        page.get_by_role("dialog").get_by_role("textbox").fill("hf:org/other")
    answer(page, label)
    expect(page.get_by_text(f"{label} of main: accepted.")).to_be_visible()
    assert sent == [("POST", {"new_model_ref": "hf:org/other"} if action == "reload" else None)]


def test_buttons_of_nodes_and_operations_send_what_the_api_takes(page: Page) -> None:
    nodes = {name: streamed_node(name, name) for name in ("online", "draining", "asleep")}
    running = {
        "operation_id": "11111111-1111-1111-1111-111111111111", "kind": "drain", "node_id": "draining", "pool_id": None,
        "state": "running", "message": "", "leases_left": 2, "started_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    body = stream("cloud", nodes=nodes, operations={str(running["operation_id"]): running})
    page.route("**/v2/events", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    sent: list[tuple[str, str]] = []

    def accept(route: Any) -> None:
        sent.append((route.request.method, route.request.url.partition("/v2/")[2]))
        route.fulfill(status=202, json={})

    page.route("**/v2/nodes/**", accept)
    page.route("**/v2/operations/**", accept)
    page.reload()
    expect(section(page, "Pools")).to_contain_text("2 tasks left")
    press(page, "Drain online")
    answer(page, "Drain")
    expect(page.get_by_text("Drain of node online: accepted.")).to_be_visible()
    press(page, "Resume draining")
    expect(page.get_by_text("Resume of node draining: accepted.")).to_be_visible()
    press(page, "Wake asleep")
    expect(page.get_by_text("Wake of node asleep: accepted.")).to_be_visible()
    press(page, "Cancel drain of draining")
    expect(page.get_by_text("Cancel of drain: accepted.")).to_be_visible()
    assert sent == [
        ("POST", "nodes/online/drain"),
        ("POST", "nodes/draining/resume"),
        ("POST", "nodes/asleep/wake"),
        ("DELETE", f"operations/{running['operation_id']}"),
    ]


def stream_with(*actions: str, pools: int = 1) -> str:
    """Return a stream with pools as the queen sends them."""
    names = ["main", *(f"pool-{number}" for number in range(1, pools))]
    return stream("home", *actions, pools={name: streamed_pool(name) for name in names})


def stream(profile: str, *actions: str, **sections: dict[str, Any]) -> str:
    """Return a stream with the documents of some sections."""
    hello = {"at": "2026-01-01T00:00:00Z", "version": "9", "profile": profile, "node_actions": ["drain", "resume"]}
    frames: list[tuple[str, dict[str, Any]]] = [("hello", {**hello, "pool_actions": actions})]
    frames += [(name, {"set": documents, "gone": []}) for name, documents in sections.items()]
    return "".join(f"event: {event}\ndata: {json.dumps(data)}\n\n" for event, data in [*frames, ("ready", {})])


def streamed_node(name: str, status: str) -> dict[str, Any]:
    at = "2026-01-01T00:00:00Z"
    return {"node_id": name, "status": status, "last_heartbeat_at": at, "version": "9", "address": "http://127.0.0.1:1"}


def streamed_pool(name: str) -> dict[str, Any]:
    return {
        "pool_id": name, "node_id": None, "state": "ready", "ready": True, "draining": False, "slots_total": 1,
        "active_leases": 0, "vram_total_bytes": 0, "vram_free_bytes": 0, "engine": "llamacpp", "engine_version": None,
        "models_available": ["<img src=x onerror=alert(1)>"], "last_error": None, "detail": None, "circuit": "closed",
        "residency": {"need_bytes": {}},
    }  # fmt: skip


def test_tasks_are_shown_with_their_tokens_and_cancelled(page: Page, home: Home) -> None:
    running, first, second = (submit(home) for _ in range(3))
    home.until(lambda: state_of(home, running) == "running")
    expect(section(page, "Queue").get_by_role("row")).to_have_count(3)
    expect(section(page, "Queue").get_by_role("row").nth(1)).to_contain_text(first[:8])
    shown = section(page, "Tasks").get_by_role("row").filter(has_text=running[:8])
    tokens = int(shown.get_by_role("cell").nth(3).inner_text())
    expect(shown.get_by_role("cell").nth(3)).not_to_have_text(str(tokens))
    press(page, f"Text of task {running[:8]}")
    log = page.get_by_role("log", name=f"Text of task {running[:8]}")
    expect(log).not_to_be_empty()
    page.get_by_role("button", name="Close", exact=True).click()
    for task_id in (second, running, first):
        if task_id == first:  # it gets the slot, so its row moves, and a click on the way is lost
            expect(section(page, "Queue").get_by_role("row").filter(has_text=first[:8])).to_have_count(0)
            expect(section(page, "Tasks").get_by_role("row").filter(has_text=first[:8])).to_have_count(1)
        press(page, f"Cancel task {task_id[:8]}")
        home.until(lambda task_id=task_id: state_of(home, task_id) == "cancelled")
    expect(section(page, "Tasks")).to_contain_text("No task runs.")
    page.get_by_text("Ended tasks").click()
    expect(section(page, "Tasks").get_by_role("row").filter(has_text=first[:8])).to_contain_text("CANCELLED")


def test_chat_streams_an_answer_and_stops(page: Page, home: Home) -> None:
    page.get_by_role("textbox", name="Message").fill("the <b>river</b>")
    page.get_by_role("spinbutton", name="Longest answer, in tokens").fill("900")
    page.keyboard.press("Shift+Tab")
    page.get_by_role("textbox", name="Message").press("Enter")
    conversation = page.get_by_role("log", name="Conversation")
    expect(conversation).to_contain_text("the <b>river</b>")
    expect(conversation.locator(".assistant p")).not_to_have_text("…")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    home.until(lambda: home.ask("GET", "/v2/tasks?state=running")[1]["count"] == 0)
    page.get_by_role("button", name="Clear").click()
    expect(conversation).to_contain_text("Nothing said yet.")
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=429, json={"error": {"message": "full"}}))
    page.get_by_role("textbox", name="Message").fill("again")
    page.get_by_role("button", name="Send").click()
    expect(section(page, "Chat").get_by_role("alert")).to_have_text("full")
    expect(page.get_by_role("textbox", name="Message")).to_have_value("again")


def test_gpu_is_shown_and_its_fence_ended(page: Page, machine: tuple[Home, ImitatedDriver]) -> None:
    home, driver = machine
    gpus = section(page, "GPUs and memory")
    expect(gpus).to_contain_text("300 W of 700 W")
    driver.change(0, watts=345.0, temp=67)
    expect(gpus).to_contain_text("67 °C · 345 W of 700 W")
    driver.inject(79)
    expect(gpus).to_contain_text("Xid 79")
    page.get_by_role("button", name="End the fence").click()
    answer(page, "End the fence")
    expect(page.get_by_text("End of the fence: accepted.")).to_be_visible()
    expect(page.get_by_role("button", name="End the fence")).to_have_count(0)
    home.until(lambda: home.ask("GET", "/v2/gpus")[1]["gpus"][0]["state"] == "ok")


def test_lost_connection_is_shown_and_restored(page: Page, home: Home) -> None:
    assert home.stop("queen-rbee") == 0
    expect(page.get_by_role("status")).to_contain_text("Trying again…")
    expect(page.get_by_role("status")).to_contain_text("What is shown is of")
    expect(row(page, "Pools", "main")).to_be_visible()
    home.start("queen-rbee")
    expect(page.get_by_role("status")).to_have_text("Live")
    expect(section(page, "Journal")).to_contain_text("daemon_ready")
    home.until(lambda: states(home) == {"main": "ready", "spare": "unloaded"})


def test_thousand_pools_are_paged_and_filtered(page: Page, home: Home) -> None:
    body = stream_with(pools=1000)
    page.route("**/v2/events", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    page.reload()
    pools = section(page, "Pools")
    expect(pools).to_contain_text("1 to 25 of 1000")
    expect(pools).to_contain_text("<img src=x onerror=alert(1)>")
    pools.get_by_role("button", name="Next").click()
    expect(pools).to_contain_text("26 to 50 of 1000")
    page.get_by_role("searchbox", name="Filter").fill("pool-999")
    expect(pools).to_contain_text("1 pool")
    expect(row(page, "Pools", "pool-999")).to_be_visible()
    assert page.locator("*").count() < 2000, "the page draws only what it shows"


def test_browser_without_javascript_gets_a_plain_status(browser: Browser, home: Home) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{home.url}/")
        expect(page.get_by_role("row").filter(has_text="spare")).to_contain_text("not ready")
        expect(page.locator("noscript p").nth(1)).to_have_text(f"llama-orch {VERSION}, ready")


@pytest.mark.parametrize(
    ("name", "viewport", "scheme"), [("light", DESKTOP, "light"), ("dark", DESKTOP, "dark"), ("phone", PHONE, "light")]
)
def test_page_is_accessible(page: Page, home: Home, tmp_path: Path, name: str, viewport: Any, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(viewport)
    tasks = [submit(home, max_tokens=900) for _ in range(3)]
    expect(section(page, "Queue").get_by_role("row")).to_have_count(3)
    assert serious_findings(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off at the right"
    directory = Path(os.environ.get("LLAMA_ORCH_SCREENSHOTS", tmp_path))
    page.screenshot(path=directory / f"{name}.png")
    press(page, "Drain main")
    assert serious_findings(page) == []
    answer(page, "Cancel")
    for task_id in tasks:
        home.ask("POST", f"/v2/tasks/{task_id}/cancel")


def test_keyboard_reaches_every_button_with_visible_focus(page: Page) -> None:
    buttons = page.locator("button:enabled:visible, a:visible, input:visible, select:visible, textarea:visible").count()
    page.evaluate("document.activeElement.blur()")
    reached, outlined = set(), 0
    for _step in range(buttons + 8):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "[...document.querySelectorAll('*')].indexOf(document.activeElement) + ' ' "
            "+ getComputedStyle(document.activeElement).outlineStyle"
        )
        if found not in reached:
            reached.add(found)
            outlined += found.endswith("solid")
    assert outlined >= buttons


def test_change_is_shown_without_reload(page: Page, home: Home, record_property: Any) -> None:
    """The time is recorded, not judged: a loaded machine takes what it takes."""
    task_id = str(uuid.uuid4())
    page.evaluate(
        """id => { window.shown = new Promise(resolve => new MutationObserver(() => {
            if (document.querySelector('#tasks').innerText.includes(id)) resolve(Date.now())
        }).observe(document.querySelector('#tasks'), {subtree: true, childList: true, characterData: true})) }""",
        task_id[:8],
    )
    began = 1000 * time.time()
    submit(home, task_id=task_id, max_tokens=200)
    record_property("event_to_page_ms", round(page.evaluate("window.shown") - began))

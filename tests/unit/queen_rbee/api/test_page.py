"""The page loads nothing from elsewhere, runs no inline script, and has a plain status for those without JavaScript."""

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

from llama_orch.contracts.pools import PoolState, PoolStatus
from queen_rbee.api.page import FOLDER, POLICY
from queen_rbee.api.plain_status import POOL_LIMIT, plain_status
from queen_rbee.api.static_files import TYPES
from tests.unit.queen_rbee.api_client import api_client

OUR_FILES = [path for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES]
PARTS = tomllib.loads((FOLDER / "parts/parts.toml").read_text())
LOADED = re.compile(r"""(?:src|href|from|import|url\()\s*[=(]?\s*["']([^"'#]+)["']""")


def pool(pool_id: str = "p", **changes: object) -> PoolStatus:
    fields = {"state": PoolState.READY, "live": True, "ready": True, "draining": False, "engine": "llamacpp"}
    return PoolStatus.model_validate({"pool_id": pool_id, **fields, **changes})


async def test_page_forbids_everything_that_is_not_its_own(tmp_path: Path) -> None:
    client = api_client(tmp_path).app.test_client()
    for path in ("/", "/page/main.js"):
        headers = (await client.get(path)).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
    directives = dict(directive.split(" ", 1) for directive in POLICY.split("; "))
    assert directives["default-src"] == directives["frame-ancestors"] == directives["form-action"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == directives["connect-src"] == "'self'"


async def test_unchanged_file_is_not_sent_again(tmp_path: Path) -> None:
    client = api_client(tmp_path).app.test_client()
    first = await client.get("/page/main.js")
    assert first.content_type == "text/javascript; charset=utf-8"
    again = await client.get("/page/main.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, await again.get_data()) == (304, b"")
    assert (await client.get("/page/main.js", headers={"if-none-match": '"other"'})).status_code == 200


@pytest.mark.parametrize("name", ["parts/parts.toml", "parts/preact.LICENSE", "../api/page.py", "none.js", "parts"])
async def test_only_files_of_the_page_are_served(tmp_path: Path, name: str) -> None:
    answer = await api_client(tmp_path).ask("GET", f"/page/{name}")
    assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("path", OUR_FILES, ids=lambda path: path.name)
def test_files_refer_only_to_files_that_are_there(path: Path) -> None:
    text = path.read_text()
    for name in LOADED.findall(text.replace('href="docs/"', "")):  # the manual, which is made elsewhere
        assert "//" not in name, name
        base = FOLDER.parent if path.suffix == ".html" else FOLDER
        assert (base / name).is_file(), name
    assert not re.search(
        r"<script(?![^>]*\bsrc=)|\son\w+=\"|\sstyle=\"|javascript:|dangerouslySet|innerHTML|eval\(", text
    )


def test_vendored_parts_are_those_of_the_list() -> None:
    listed = {file["name"]: file["sha256"] for part in PARTS.values() for file in part["files"]}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (FOLDER / "parts").iterdir()}
    del found["parts.toml"]
    assert found == listed
    for name, part in PARTS.items():
        assert re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", part["integrity"]), name
        assert any(file["name"].endswith("LICENSE") for file in part["files"]), name


async def test_plain_status_is_part_of_the_page(tmp_path: Path) -> None:
    queen = api_client(tmp_path)
    queen.parts.registry.update("a", 0, [pool("default", last_error="<b>worn</b>", ready=False)])
    text = await (await queen.app.test_client().get("/")).get_data(as_text=True)
    shown = text[text.index("<noscript>\n<main>") :]
    assert "<td>default</td>" in shown
    assert "&lt;b&gt;worn&lt;/b&gt;" in shown
    assert "0 pools ready, 0 queued, 0 running" in shown


def test_plain_status_tells_less_where_a_token_is_set() -> None:
    pools = [pool(last_error="secret", node_id="node-7", state=PoolState.FAILED, ready=False)]
    everybody, ours = plain_status(pools, [], None), plain_status(pools, [], "1 running")
    assert "not ready" in everybody
    assert not {"secret", "node-7", "failed"} & set(re.findall(r"[\w-]+", everybody))
    assert all(word in ours for word in ("secret", "node-7", "failed", "1 running"))


def test_plain_status_is_bounded() -> None:
    text = plain_status([pool(f"p{number}") for number in range(POOL_LIMIT + 7)], ["why"], None)
    assert text.count("<tr>") == POOL_LIMIT + 1
    assert "7 more pools" in text
    assert "not ready: why" in text
    assert "No pools" in plain_status([], [], None)

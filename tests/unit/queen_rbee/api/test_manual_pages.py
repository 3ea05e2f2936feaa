"""The manual is served from a fixed table of files, or its absence is explained."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from quart_trio import QuartTrio

from llama_orch.http.server.access import Access, Caller
from llama_orch.http.server.app import create_app
from llama_orch.http.server.mounting import mount
from llama_orch.settings.types import Secret
from queen_rbee.api.manual import POLICY, ManualRoutes


def app_of(*folders: Path) -> QuartTrio:
    app = create_app("queen-rbee", list, CollectorRegistry())
    mount(app, None, ManualRoutes(folders))
    return app


@pytest.fixture
def manual(tmp_path: Path) -> QuartTrio:
    folder = tmp_path / "html"
    folder.mkdir()
    (tmp_path / "secret.html").write_text("secret")
    (folder / "index.html").write_text("<h1>Manual</h1>")
    (folder / "orchctl.1.html").write_text("<h1>orchctl</h1>")
    (folder / "style.css").write_text("b {}")
    (folder / "notes.txt").write_text("notes")
    return app_of(tmp_path / "none", folder)


async def test_index_pages_and_style_are_served(manual: QuartTrio) -> None:
    client = manual.test_client()
    assert (await client.get("/docs")).headers["location"] == "docs/"
    assert await (await client.get("/docs/")).get_data() == b"<h1>Manual</h1>"
    assert await (await client.get("/docs/orchctl.1.html")).get_data() == b"<h1>orchctl</h1>"
    style = await client.get("/docs/style.css")
    assert style.content_type == "text/css; charset=utf-8"
    again = await client.get("/docs/style.css", headers={"if-none-match": style.headers["etag"]})
    assert (again.status_code, await again.get_data()) == (304, b"")


async def test_manual_runs_nothing_and_loads_only_its_style(manual: QuartTrio) -> None:
    headers = (await manual.test_client().get("/docs/")).headers
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    directives = dict(directive.split(" ", 1) for directive in POLICY.split("; "))
    assert directives.pop("style-src") == "'self'"
    assert set(directives.values()) == {"'none'"}


@pytest.mark.parametrize(
    "name", ["notes.txt", "../secret.html", "..%2Fsecret.html", "%2e%2e/secret.html", "none.html", "html/index.html"]
)
async def test_only_files_of_the_table_are_served(manual: QuartTrio, name: str) -> None:
    answer = await manual.test_client().get(f"/docs/{name}")
    assert answer.status_code == 404
    assert (await answer.get_json())["code"] == "NOT_FOUND"


async def test_file_added_later_is_not_served(manual: QuartTrio, tmp_path: Path) -> None:
    (tmp_path / "html/later.html").write_text("later")
    assert (await manual.test_client().get("/docs/later.html")).status_code == 404


async def test_missing_manual_is_explained(tmp_path: Path) -> None:
    answer = await app_of(tmp_path / "none").test_client().get("/docs/")
    said = await answer.get_json()
    assert answer.status_code == 404
    assert "not installed here. Read it with man llama-orch. In a source tree, make html makes it." in said["hint"]


async def test_manual_removed_meanwhile_is_explained(manual: QuartTrio, tmp_path: Path) -> None:
    (tmp_path / "html/orchctl.1.html").unlink()
    answer = await manual.test_client().get("/docs/orchctl.1.html")
    assert answer.status_code == 404
    assert "No such file" in (await answer.get_json())["hint"]


def test_manual_needs_no_token() -> None:
    access = Access(token=Secret("t" * 32), page=True)
    caller = Caller(peer="192.0.2.7")
    assert [access.refusal(path, caller) for path in ("/docs", "/docs/", "/docs/orchctl.1.html")] == [None] * 3
    assert access.refusal("/docsomething", caller) is not None

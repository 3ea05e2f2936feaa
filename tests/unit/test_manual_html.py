"""The manual as HTML has every word of the pages, links that lead somewhere, and nothing that its CSP forbids."""

import html
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.engines.fixtures import skip_or_fail

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "man").glob("*.[1-8]"))
EVERY_PAGE = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
BLOCK = re.compile(r"</?(?:p|dt|dd|li|h[1-3]|pre|dl|ul|ol|br)\b[^>]*>")
VOID = {"meta", "link", "br"}


def make_html(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [sys.executable, ROOT / "packaging/manual_html.py", source, out]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("html")
    done = make_html(ROOT / "man", out)
    assert done.returncode == 0, done.stderr
    return out


class Outline(HTMLParser):
    """The links and ids of a document; fails if elements are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        given = {name: value or "" for name, value in attrs}
        self.attributes |= given.keys()
        self.links += [given["href"]] if "href" in given else []
        self.ids += [given["id"]] if "id" in given else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()


def words(text: str) -> str:
    """Return the text without spaces, bullets, and the numbers of lists, which HTML does not have in its text."""
    plain = text.translate({0x2010: "-", 0x2212: "-", 0x2019: "'", 0x201C: '"', 0x201D: '"'})
    return "".join(word for word in plain.split() if not re.fullmatch(r"•|\d\.", word))


@EVERY_PAGE
def test_html_has_the_words_that_mandoc_prints(path: Path, made: Path) -> None:
    if shutil.which("mandoc") is None:
        skip_or_fail("mandoc is missing; apt-get install mandoc")
    command: list[str | Path] = ["mandoc", "-T", "utf8", "-O", "width=500", path]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env={"LC_ALL": "C.UTF-8"}).stdout
    lines = re.sub(".\x08", "", printed).splitlines()[1:-1]
    page = (made / f"{path.name}.html").read_text()
    body = page[page.index("</nav>") : page.index("</main>")]
    text = html.unescape(re.sub(r"<[^>]*>", "", BLOCK.sub(" ", body)))
    assert words(text) == words("\n".join(lines))


def test_every_link_leads_to_a_page_and_place_of_the_manual(made: Path) -> None:
    outlines = {path.name: Outline(path.read_text()) for path in made.glob("*.html")}
    assert set(outlines) == {"index.html", *(f"{path.name}.html" for path in PAGES)}
    for name, outline in outlines.items():
        assert len(outline.ids) == len(set(outline.ids)), name
        for link in outline.links:
            file, _, place = link.partition("#")
            assert (made / (file or name)).is_file(), (name, link)
            assert not place or place in outlines[file or name].ids, (name, link)


def test_pages_have_no_script_and_no_inline_style(made: Path) -> None:
    for path in made.glob("*.html"):
        assert Outline(path.read_text()).attributes <= {
            "lang", "charset", "name", "content", "rel", "href", "id", "aria-label"
        }  # fmt: skip
        assert "<script" not in path.read_text()
    assert "url(" not in (made / "style.css").read_text()


def test_index_lists_each_page_with_its_purpose(made: Path) -> None:
    index = (made / "index.html").read_text()
    listed = re.findall(r'<dt><a href="(\S+)\.html">(\S+)</a></dt><dd>(.+)</dd>', index)
    assert sorted(name for name, _title, _purpose in listed) == sorted(path.name for path in PAGES)
    assert {name: purpose for name, _title, purpose in listed}["orchctl.1"] == "command line client of llama-orch"


def test_units_and_pages_are_linked(made: Path) -> None:
    overview = (made / "llama-orch.7.html").read_text()
    assert '<a href="orchctl.1.html"><b>orchctl</b>(1)</a>' in overview
    assert '<a href="llama-orch-units.7.html#llama-orch.target"><b>llama-orch.target</b></a>' in overview


@pytest.mark.parametrize("line", [".XX text", "text \\[u2014]", "text \\(zz"])
def test_unknown_source_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.1").write_text(f'.TH x 1 "2026-01-01" "llama-orch 1" "llama-orch"\n.SH NAME\n{line}\n')
    done = make_html(tmp_path, tmp_path / "out")
    assert (done.returncode, "x.1:3: unknown" in done.stderr) == (65, True), done.stderr

"""llama-orch-units(7) and units/ name the same units, and each unit names pages that are there."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.unit.manual_page import Page

ROOT = Path(__file__).parents[2]
UNITS = sorted(path for path in (ROOT / "units").iterdir() if path.suffix != ".preset" and "." in path.name)
PAGES = {f"{path.stem}({path.suffix[1:]})" for path in (ROOT / "man").glob("*.[1-8]")}
OF_SYSTEMD = {"multi-user.target", "network-online.target"}
UNIT_NAME = re.compile(r"[a-z][\w@-]*\.(?:service|socket|path|target|slice|timer|mount)\b")
SECTIONS = ("TARGET AND SLICE", "DAEMONS", "SOCKETS", "PATH UNITS", "ENGINES")


def page() -> Page:
    return Page(ROOT / "man/llama-orch-units.7")


def test_page_describes_each_unit_once() -> None:
    assert sorted(page().names(*SECTIONS)) == [path.name for path in UNITS]


def test_page_names_no_unit_that_is_not_there() -> None:
    source = "\n".join([page().text, *page().examples()])
    named = {re.sub(r"@\w+\.", "@.", name) for name in UNIT_NAME.findall(source)}
    assert named - OF_SYSTEMD <= {path.name for path in UNITS}


def test_page_names_generator_and_preset() -> None:
    others = {path.name for path in (ROOT / "units").iterdir()} - {path.name for path in UNITS}
    assert {name for name in others if name not in page().text} == set()


def test_examples_edit_units_that_are_there() -> None:
    edited = re.findall(r"^# systemctl edit (\S+)$", "\n".join(page().examples()), re.MULTILINE)
    assert len(edited) == 6
    assert {re.sub(r"@\w+\.", "@.", name) for name in edited} <= {path.name for path in UNITS}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_unit_documents_itself_with_existing_pages(path: Path) -> None:
    [line] = re.findall(r"^Documentation=(.*)$", path.read_text(), re.MULTILINE)
    pages = re.findall(r"man:(\S+)", line)
    assert "llama-orch-units(7)" in pages
    assert set(pages) <= PAGES


def test_installation_links_page_from_each_unit(tmp_path: Path) -> None:
    (site := tmp_path / "site").mkdir()
    subprocess.run(["packaging/install.sh", tmp_path / "dest", site, "3.11"], cwd=ROOT, check=True)
    links = {path.name for path in (tmp_path / "dest/usr/share/man/man7").iterdir() if path.is_symlink()}
    assert links == {f"{name}.7.gz" for name in [*(path.name for path in UNITS), "llama-orch-generator"]}
    assert all(
        (tmp_path / "dest/usr/share/man/man7" / link).readlink() == Path("llama-orch-units.7.gz") for link in links
    )

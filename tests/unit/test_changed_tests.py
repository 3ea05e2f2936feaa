"""make check runs the unit tests of what changed."""

from pathlib import Path

from tools.changed_tests import unit_tests_of


def found(*names: str) -> list[str]:
    return [str(path) for path in unit_tests_of(map(Path, names))]


def test_module_is_tested_by_its_mirror_folder() -> None:
    assert found("daemons/queen_rbee/pools/placement.py") == ["tests/unit/queen_rbee/pools"]


def test_changed_test_runs_alone() -> None:
    assert found("tests/unit/queen_rbee/pools/test_placement.py") == ["tests/unit/queen_rbee/pools/test_placement.py"]


def test_file_in_chosen_folder_is_not_repeated() -> None:
    names = ("daemons/queen_rbee/pools/placement.py", "tests/unit/queen_rbee/pools/test_placement.py")
    assert found(*names) == ["tests/unit/queen_rbee/pools"]


def test_missing_test_folder_falls_back_to_parent() -> None:
    assert found("daemons/queen_rbee/nowhere/at_all.py") == ["tests/unit/queen_rbee"]


def test_documents_are_checked_by_test_guides() -> None:
    assert found("README.md") == ["tests/unit/test_guides.py"]


def test_pages_and_units_are_checked_by_their_tests() -> None:
    assert {"tests/unit/test_manual.py", "tests/unit/test_unit_pages.py"} <= set(found("units/queen-rbee.service"))
    assert "tests/unit/test_manual_html.py" in found("man/orchctl.1")

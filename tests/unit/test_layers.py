"""Folders of a package import in one direction only, and no daemon imports another."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "daemons"

LAYERS = {
    "llama_orch": "packages urls redaction addresses bell ids telemetry contracts settings service spool http engines "
    "files keys",
    "llama_orch/http": "tls client server",
    "queen_rbee": "store shared keys pools settings sessions response_store tasks node_metrics metrics prefixes "
    "catalog fleet sources dispatch intake residency waking batches live status parts api daemon __main__",
    "queen_rbee/api": "paging parameters streaming static_files openapi v1 * routes",
    "queen_rbee/store": "protocol sqlite",
    "pool_managerd": "settings pools provisioner_client wait_any cluster gpus metrics relay draining engines handoffs "
    "power status api daemon __main__",
    "engine_provisioner": "exec_engine containers exec_container xllamacpp_server "
    "engine failures metrics step_deadline checksums gguf engine_record build modes fetch sources spec launch "
    "report settings memory cache operations acquirer pulls cleanup supervise plan api daemon __main__",
    "orchctl": "locations errors error_responses nurseries widths child client destination provisioner output command "
    "since stdin yaml_text lists paging tables watch commands submit chat machine top check journal events config "
    "bench doctor bundle command_line index completion parser run __main__",
}
"""Each folder's modules and folders, lowest first: an import may only point to an earlier name. `*` stands for all that
are not listed, which may import each other's lower layers but not each other."""


def imports(path: Path) -> Iterator[str]:
    """The dotted names of the modules of ours that the module at `path` imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def against_the_order(folder: str, order: str) -> list[str]:
    """What the modules below `folder` import against `order`, as `importer imports imported`."""
    names, prefix = order.split(), folder.replace("/", ".") + "."
    rank = {name: position for position, name in enumerate(names)}
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        here = module.removeprefix(prefix).split(".")[0]
        for imported in imports(path):
            there = imported.removeprefix(prefix).split(".")[0]
            if not imported.startswith(prefix) or there == here or here == "__init__":
                continue
            if not (ROOT / folder / there).is_dir() and not (ROOT / folder / f"{there}.py").is_file():
                continue  # a name that the package itself defines, such as llama_orch.VERSION
            if rank.get(there, rank.get("*", -1)) >= rank.get(here, rank.get("*", -1)):
                found.append(f"{module} imports {imported}")
    return found


@pytest.mark.parametrize("folder", LAYERS)
def test_folders_import_in_one_direction(folder: str) -> None:
    assert against_the_order(folder, LAYERS[folder]) == []


def test_import_against_order_names_both_modules() -> None:
    swapped = against_the_order("queen_rbee", "api pools")
    assert any(line.startswith("queen_rbee.api.") and " imports queen_rbee.pools." in line for line in swapped)


@pytest.mark.parametrize("folder", [name for name in LAYERS if "/" not in name])
def test_every_module_has_a_place_in_order(folder: str) -> None:
    there = {path.stem for path in (ROOT / folder).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__"} == set(LAYERS[folder].split())


@pytest.mark.parametrize("daemon", ["queen_rbee", "pool_managerd", "engine_provisioner", "orchctl"])
def test_no_daemon_imports_another(daemon: str) -> None:
    own = {daemon, "llama_orch"}
    packages = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / daemon).rglob("*.py"))
        for name in imports(path)
        if name.split(".")[0] in packages - own
    ]
    assert found == []

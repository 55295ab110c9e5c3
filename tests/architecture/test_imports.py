"""Imports go one way: every room knows only the rooms on floors below it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import momos_rs

PACKAGE = Path(momos_rs.__file__).parent

FLOORS = (
    {"_core", "errors", "dtypes", "defaults", "limits", "records"},
    {"runtime"},
    {"checkpoint"},
    {"mosaic"},
    {"archive", "ops", "quantize", "theory"},
    {"packing", "complexity", "projection", "calibration"},
    {"bdm", "nn", "plots"},
    {"integrations"},
    {"experiments"},
    {"cli"},
    {"__init__", "__main__"},
)
"""From the ground up. Rooms on one floor do not know each other; the ground is one room."""


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts if parts[-1] != "__init__" or len(parts) == 1 else parts[:-1])


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def floor_of(module: str) -> int:
    for number, rooms in enumerate(FLOORS):
        if room_of(module) in rooms:
            return number
    raise AssertionError(f"{module}: no floor of FLOORS has a room {room_of(module)!r}")


def imports_of(module: str) -> set[str]:
    """The modules of the package that a module imports anywhere, also within functions."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    if module == "__init__":
        package = []
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {
                alias.name.partition(".")[2] or "__init__"
                for alias in node.names
                if alias.name.partition(".")[0] == "momos_rs"
            }
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = package[: len(package) - (node.level - 1)]
            source = ".".join([*base, *(node.module or "").split(".")]).strip(".")
        elif (node.module or "").partition(".")[0] == "momos_rs":
            source = (node.module or "").partition(".")[2]
        else:
            continue
        for alias in node.names:
            full = f"{source}.{alias.name}".strip(".")
            found.add(full if full in MODULES or full == "_core" else source or "__init__")
    return found - {module}


IMPORTS = {module: imports_of(module) for module in MODULES}


def test_no_import_runs_upwards_or_sideways() -> None:
    wrong = []
    for module, imported in IMPORTS.items():
        for target in sorted(imported):
            if room_of(module) == room_of(target) or target == "__init__":
                continue
            here, there = floor_of(module), floor_of(target)
            if there > here or (here == there and here > 0):
                wrong.append(f"{module} (floor {here}) imports {target} (floor {there})")
    assert not wrong, "\n".join(wrong)


def test_only_the_top_imports_the_package_itself() -> None:
    users = [
        module
        for module, imported in IMPORTS.items()
        if "__init__" in imported and room_of(module) not in ("__main__", "cli", "experiments")
    ]
    assert not users


def test_no_import_cycles() -> None:
    # A package's __init__ only re-exports its modules, which never import it.
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            raise AssertionError("cycle: " + " -> ".join((*path[path.index(module) :], module)))
        if module in done:
            return
        for target in sorted(IMPORTS.get(module, ())):
            visit(target, (*path, module))
        done.add(module)

    for module in MODULES:
        visit(module, ())
    assert done >= set(MODULES)


def test_few_modules_stand_in_the_root() -> None:
    root = {path.stem for path in PACKAGE.glob("*.py")}
    ground = FLOORS[0] - {"_core"}
    assert root == ground | {"__init__", "__main__", "theory"}


def test_every_module_imports() -> None:
    optional = ("lightning", "transformers", "matplotlib", "triton")
    names = [
        info.name
        for info in pkgutil.walk_packages([str(PACKAGE)], "momos_rs.")
        if not info.name.endswith("__main__")
    ]
    assert len(names) > 100
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            if not any(each in str(error) for each in optional):
                raise


@pytest.mark.parametrize("name", momos_rs.__all__)
def test_public_names_are_reachable_after_a_plain_import(name: str) -> None:
    assert getattr(momos_rs, name) is not None
    assert name in dir(momos_rs)


def test_a_subpackage_is_an_attribute() -> None:
    program = (
        "import momos_rs, types; assert isinstance(momos_rs.complexity, types.ModuleType);"
        "momos_rs.nn.mosaic_parametrize; momos_rs.packing.PackOptions"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

"""The import arrows of the house, read from every module's syntax tree; nothing is imported to look at it.

The design promises that abi, units and errors know nothing of ours, that the engine knows no hypervisor, that
stub knows no harness, and that what touches the world (the CPU library, sockets, threads, clocks, processes)
stands in few named files. Each promise is a table here; an import that no row allows is a failing test.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GROUND = frozenset({"stub.abi", "stub.units", "stub.errors"})

# What a part may import of ours, besides itself. A part that has no row here may not exist.
ALLOWED: dict[str, frozenset[str]] = {
    "stub.abi": frozenset(),
    "stub.units": frozenset(),
    "stub.errors": frozenset(),
    "stub.memory": GROUND,
    "stub.image": GROUND,
    "stub.domain": GROUND | {"stub.image", "stub.memory"},
    "stub.engine": frozenset({"stub.units", "stub.errors"}),
    "stub.devices": GROUND | {"stub.memory"},
    "stub.command_line": frozenset({"stub.errors"}),
    "stub.trace": GROUND | {"stub.memory", "stub.command_line"},
    "stub.hypervisor": GROUND | {"stub.domain", "stub.memory", "stub.devices", "stub.trace", "stub.engine.base"},
    "stub.gdb": GROUND
    | {"stub.image", "stub.domain", "stub.memory", "stub.devices", "stub.hypervisor", "stub.engine.base"}
    | {"stub.machine", "stub.trace"},
    # The debugger's protocol side knows a guest by model.Target only.
    "stub.gdb.model": frozenset(),
    "stub.gdb.packet": frozenset(),
    "stub.gdb.features": frozenset({"stub.engine.base"}),
    "stub.gdb.handlers": frozenset({"stub.gdb.model", "stub.gdb.features", "stub.gdb.agent", "stub.gdb.session"}),
    "stub.gdb.session": frozenset({"stub.gdb.model", "stub.gdb.features", "stub.gdb.packet", "stub.gdb.handlers"}),
    "stub.gdb.listener": frozenset({"stub.errors"}),
    "stub.gdb.server": frozenset(
        {"stub.errors", "stub.gdb.listener", "stub.gdb.model", "stub.gdb.packet", "stub.gdb.session"}
    ),
    "stub.inputs": frozenset({"stub.domain"}),
    "stub.limits": frozenset({"stub.errors", "stub.hypervisor.clock"}),
    "stub.runfiles": frozenset({"stub.errors", "stub.domain", "stub.hypervisor.verdict"}),
    "stub.machine": frozenset({"stub"}),
    "stub.options": GROUND | {"stub.domain", "stub.gdb.listener", "stub.trace.pagetables.moments"},
    "stub.asked": frozenset({"stub.errors", "stub.domain"}),
    "stub.terminal": frozenset({"stub.machine", "stub.errors"}),
    "stub.cli": frozenset({"stub"}),
    "harness": frozenset({"stub", "harness"}),
}

# Modules of others that only these files may import: (module, files).
EDGES: dict[str, frozenset[str]] = {
    "unicorn": frozenset({"stub/engine/unicorn/__init__.py"}),
    "stub.engine.unicorn._core": frozenset({"stub/engine/unicorn/__init__.py"}),
    "stub.engine.qemu._core": frozenset(
        {"stub/engine/qemu/__init__.py", "stub/engine/qemu/process.py", "stub/engine/qemu/window.py"}
    ),
    "stub.hypervisor._entry": frozenset(
        {"stub/hypervisor/compat.py", "stub/hypervisor/traps.py", "stub/hypervisor/vcpu.py"}
    ),
    "stub.memory._walk": frozenset({"stub/memory/guest.py"}),
    "stub.trace._recorder": frozenset({"stub/trace/writer.py"}),
    "socket": frozenset(
        {"harness/debugger.py", "harness/debugger_wire.py", "stub/gdb/listener.py", "stub/gdb/server.py"}
    ),
    "socketserver": frozenset(),
    "selectors": frozenset(),
    "asyncio": frozenset(),
    "threading": frozenset({"harness/debugging.py"}),
    "multiprocessing": frozenset(),
    "subprocess": frozenset(
        {
            "harness/bisect/processes.py",
            "harness/disks.py",
            "harness/gdb.py",
            "harness/packages.py",
            "harness/programs.py",
            "stub/engine/qemu/process.py",
        }
    ),
    "ctypes": frozenset({"harness/bisect/warm.py"}),
    "random": frozenset(),
    "secrets": frozenset(),
    "uuid": frozenset(),
    "pickle": frozenset(),
}


# Who may sleep, and why.
SLEEPERS = {
    "harness.debugging": "a debugger that has just gone is still on its way out, as its server has a thread",
    "stub.machine": "with --realtime, while every vCPU is blocked the wall clock is what passes",
    "stub.trace.reader": "follows a file that another process writes, and nothing tells when it grows",
}


@dataclass(frozen=True)
class Import:
    """One import: ``module`` is as much of the name as is a module; ``typing`` if only type checkers see it."""

    source: str
    line: int
    module: str
    typing: bool


def module_name(path: Path) -> str:
    """``stub/abi/xen.py`` is ``stub.abi.xen``; a package is its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for folder in ("stub", "harness") for path in sorted((ROOT / folder).rglob("*.py"))}


TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in FILES.items()}


def absolute(importer: str, node: ast.ImportFrom) -> str:
    """The module that ``from X import …`` names, its dots resolved against the importer."""
    if not node.level:
        return node.module or ""
    parts = importer.split(".")
    package = parts if FILES[importer].name == "__init__.py" else parts[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def under_type_checking(tree: ast.Module) -> set[int]:
    """The ids of the nodes behind ``if TYPE_CHECKING:``."""
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    return {id(node) for guard in guards for statement in guard.body for node in ast.walk(statement)}


def imports(importer: str) -> Iterator[Import]:
    """Every import of a module, those inside functions and behind TYPE_CHECKING too."""
    tree = TREES[importer]
    typing = under_type_checking(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(importer, node.lineno, alias.name, id(node) in typing)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(importer, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                known = inner in FILES or inner in EDGES
                yield Import(importer, node.lineno, inner if known else base, id(node) in typing)


IMPORTS = [found for name in FILES for found in imports(name)]
OURS = [found for found in IMPORTS if found.module.split(".")[0] in ("stub", "harness", "images")]


def within(module: str, part: str) -> bool:
    return module == part or module.startswith(part + ".")


def part_of(module: str) -> str:
    """The row of the table that speaks for a module: the longest that contains it."""
    return max((part for part in ALLOWED if within(module, part)), key=len, default="")


def place(found: Import) -> str:
    return f"{FILES[found.source].relative_to(ROOT)}:{found.line} imports {found.module}"


def test_every_module_belongs_to_a_part_of_the_house() -> None:
    homeless = [name for name in FILES if name != "stub" and not part_of(name)]
    assert not homeless, f"no row of the table says what these may import: {homeless}"


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_part_imports_only_what_its_row_allows(part: str) -> None:
    allowed = ALLOWED[part] | {part}
    wrong = [
        place(found)
        for found in OURS
        if part_of(found.source) == part and not any(within(found.module, target) for target in allowed)
    ]
    assert not wrong, f"{part} may import {sorted(allowed)} of ours:\n" + "\n".join(wrong)


def test_the_empty_package_imports_nothing() -> None:
    assert not [place(found) for found in IMPORTS if found.source == "stub" and found.module != "__future__"]


@pytest.mark.parametrize("module", sorted(EDGES))
def test_what_touches_the_world_stands_in_named_files(module: str) -> None:
    users = {str(FILES[found.source].relative_to(ROOT)) for found in IMPORTS if within(found.module, module)}
    assert users <= EDGES[module], f"{module} may be imported by {sorted(EDGES[module])} only"


def test_exactly_one_file_knows_unicorn() -> None:
    """It may import the package, or only find the library in it and leave the rest to the C part."""
    users = {found.source for found in IMPORTS if within(found.module, "unicorn")}
    finders = {name for name, tree in TREES.items() if "unicorn" in found_specs(tree)}
    assert len(users | finders) == 1


def test_only_the_c_part_includes_unicorns_header() -> None:
    sources = [path for pattern in ("*.c", "*.h") for path in (ROOT / "stub").rglob(pattern)]
    includers = [path.name for path in sources if "unicorn/unicorn.h" in path.read_text(encoding="utf-8")]
    assert includers == ["core.h"]


def found_specs(tree: ast.Module) -> Iterator[str]:
    """What a file looks up by ``find_spec`` or ``import_module`` with a literal name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("find_spec", "import_module"):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def strings(tree: ast.Module) -> Iterator[str]:
    """The string constants of a file that are not docstrings (an expression of their own)."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


def test_exactly_one_file_launches_qemu() -> None:
    launchers = [name for name, tree in TREES.items() if any("qemu-system" in text for text in strings(tree))]
    assert launchers == ["stub.engine.qemu.process"]


def test_nothing_sleeps() -> None:
    """Waiting is for an event or for virtual time, never for a while; the exceptions have their reasons."""
    sleepers = set()
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr == "sleep":
                sleepers.add(name)
            if isinstance(node, ast.ImportFrom) and node.module == "time" and "sleep" in [a.name for a in node.names]:
                sleepers.add(name)
    assert sleepers <= set(SLEEPERS)


def test_no_import_cycles() -> None:
    """At run time, imports inside functions included: a late import is no way out of a cycle."""
    graph: dict[str, set[str]] = {name: set() for name in FILES}
    for found in OURS:
        if found.module in FILES and found.module != found.source and not found.typing:
            graph[found.source].add(found.module)
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail("import cycle: " + " <- ".join(error.args[1]))
    assert len(order) == len(FILES)

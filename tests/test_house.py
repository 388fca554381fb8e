"""The rooms of the package: imports go down the list of docs/architecture.md, kinds are known to the registry alone."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from lmsys_ray.cli.main import COMMANDS
from lmsys_ray.config.base import FORMER_KINDS
from lmsys_ray.members.registry import names

ROOT = Path(__file__).parents[1]
PACKAGE = "lmsys_ray"

ROOMS = (
    *("cli", "report", "evaluation", "benchmark", "simulation", "planning", "scoring", "members", "ensemble", "ingest"),
    *("cluster", "prompts", "run_directory", "config", "data", "checkpoints", "engine", "fault_tolerance", "storage"),
)
"""From the top; the modules of the package itself lie below them all."""

RAY = {"cluster", "fault_tolerance"}
"""Rooms that import Ray."""

RAY_ELSEWHERE = {
    "lmsys_ray.members.training.workers",
    "lmsys_ray.scoring.shard_worker",
    "lmsys_ray.simulation.simulate",
}

KNOW_KINDS = {"benchmark", "cli", "simulation"}
"""Rooms that import from the folder of a kind: they measure it, or train it."""

LONGEST = 300

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / PACKAGE).rglob("*.py")
}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> frozenset[str]:
    """Returns the modules that one imports, anywhere in it; those of this package as far as they are modules."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{module} has a relative import"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in full}
    return frozenset(found)


def own(module: str) -> Iterator[str]:
    return (name for name in sorted(imports(module)) if name in MODULES and name not in (module, PACKAGE))


def room(module: str) -> str:
    """Returns the room of a module; of one of the package itself nothing."""
    parts = module.split(".")
    inside = len(parts) > 2 or MODULES[module].name == "__init__.py"
    return parts[1] if len(parts) > 1 and inside else ""


def floor(module: str) -> int:
    return ROOMS.index(room(module)) if room(module) else len(ROOMS)


def test_every_folder_is_a_room() -> None:
    assert {room(module) for module in MODULES} - {""} <= set(ROOMS)


def test_the_page_has_the_rooms_in_this_order() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.search(r"Imports go down this list only\.\n\n(.*?)\n\n", page, re.DOTALL)
    assert rows
    listed = re.findall(r"`(\w+)/`", "\n".join(line.split("|")[1] for line in rows[1].splitlines()))
    there = {room(module) for module in MODULES}
    assert listed == [name for name in ROOMS if name in there]


def test_imports_go_down() -> None:
    assert [f"{module} -> {name}" for module in MODULES for name in own(module) if floor(name) < floor(module)] == []


def test_no_imports_go_round() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for name in own(module):
                visit(name, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_ray_is_imported_where_it_belongs() -> None:
    using = {module for module in MODULES if any(name.split(".")[0] == "ray" for name in imports(module))}
    assert {module for module in using if room(module) not in RAY} == RAY_ELSEWHERE


def test_kinds_are_known_to_the_registry_alone() -> None:
    """Nobody else imports from their folders, but for the rooms that measure or train them."""
    for module in MODULES:
        kinds = {name.split(".")[2] for name in own(module) if name.startswith(f"{PACKAGE}.members.")} & set(names())
        mine = module.split(".")[2] if module.startswith(f"{PACKAGE}.members.") else ""
        assert room(module) in KNOW_KINDS or kinds <= {mine}, module


def test_nothing_depends_on_the_name_of_a_kind() -> None:
    kinds = {*names(), *FORMER_KINDS}
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Compare | ast.match_case):
                compared = {each.value for each in ast.walk(node_head(node)) if isinstance(each, ast.Constant)}
                assert not compared & kinds, f"{module}, line {node_head(node).lineno}"
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
                asked = {getattr(each, "id", getattr(each, "attr", "")) for each in ast.walk(node.args[1])}
                settings = {name for name in asked if name.endswith(("Settings", "Kind"))}
                assert module == f"{PACKAGE}.members.registry" or not settings, f"{module}, line {node.lineno}"


def node_head(node: ast.Compare | ast.match_case) -> ast.expr | ast.pattern:
    return node if isinstance(node, ast.Compare) else node.pattern


def test_every_module_is_in_use() -> None:
    """It is imported, or named in a text of the code as a module to run or to load, from a command on."""
    commands = {f"{PACKAGE}.cli.{name.replace('-', '_')}" for name in COMMANDS}
    pages = [f"{PACKAGE}.scoring.settings_page", f"{PACKAGE}.cli.training_page"]
    waiting = [f"{PACKAGE}.cli.main", *commands, *pages]
    reached: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in reached:
            continue
        reached.add(module)
        texts = {
            word.partition(":")[0]
            for node in ast.walk(tree(module))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            for word in node.value.split()
        }
        parents = {module.rsplit(".", depth)[0] for depth in range(1, module.count(".") + 1)}
        waiting += [name for name in {*own(module), *texts, *parents} if name in MODULES]
    assert sorted(MODULES.keys() - reached) == []


def test_files_are_short() -> None:
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert {module: lines for module, lines in lengths.items() if lines > LONGEST} == {}

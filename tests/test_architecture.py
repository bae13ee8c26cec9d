"""The arrows between the parts point down: proved by reading the imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import recycle_cli

PACKAGE = Path(recycle_cli.__file__).parent

FLOORS = [
    ["__main__"],
    ["cli"],
    ["plan"],
    ["bench", "dataset"],
    ["serve", "verbs"],
    ["scorer"],
    ["training"],
    ["tasks"],
    ["batches", "trunk"],
    ["runs", "store"],
    ["corpus", "models"],
    ["recipe", "keys", "reports", "errors", "pointers", "requirements", "runtime", "settings", "disk"],
]
"""Top to bottom. A part imports from floors below its own; those at the bottom nothing of ours but `errors`."""

LIGHT = {"cli", "__main__", "reports", "errors", "requirements", "settings", "__init__"}
"""What `recycle --help` loads; nothing heavy may be imported there at module level."""

HEAVY = {"torch", "transformers", "torchvision", "zarr", "datasets", "numpy"}


HELP = """
import sys, recycle_cli.__main__
sys.argv = ["recycle", "finetune", "--help"]
try:
    recycle_cli.__main__.main()
finally:
    print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


def part_of(module: Path) -> str:
    relative = module.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports_of(module: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def functions_of(module: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(module.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)]


def parameters_of(function: ast.FunctionDef) -> list[ast.arg]:
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [one for one in every if one is not None and one.arg not in ("self", "cls")]


def is_command(function: ast.FunctionDef) -> bool:
    """Whether its parameters are options of the command line, whose others are generated from the settings."""
    calls = [one.func for one in function.decorator_list if isinstance(one, ast.Call)]
    return any(isinstance(one, ast.Name) and one.id == "with_options" for one in calls)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_arrow_points_down(module):
    part = part_of(module)
    if part == "__init__":
        return
    floor = next((index for index, parts in enumerate(FLOORS) if part in parts), None)
    assert floor is not None, f"{part} has no place in the architecture: name its floor"
    below = {name for parts in FLOORS[floor + 1 :] for name in parts} | {part, "__version__"}
    if floor == len(FLOORS) - 1:
        below |= {"errors"}
    used = {name.split(".")[1] for name in imports_of(module) if name.startswith("recycle_cli.")}
    assert used <= below, f"{part} imports {sorted(used - below)}, which do not lie below it"


def test_no_cycles_between_modules():
    names = {".".join(("recycle_cli", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in modules()}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    graph = {
        name: {used for used in imports_of(path) if used in names and used != name} for name, path in names.items()
    }
    graph[PACKAGE.name] = set()  # what its face names is loaded when it is first used
    for name, used in graph.items():
        if names[name].name != "__init__.py":
            package = name.rpartition(".")[0]
            used.discard(package)
    done: set[str] = set()

    def visit(name, path):
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for used in graph[name]:
                visit(used, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])


@pytest.mark.parametrize("module", [path for path in modules() if part_of(path) in LIGHT], ids=lambda path: path.name)
def test_the_command_line_imports_nothing_heavy(module):
    roots = {name.split(".")[0] for name in imports_of(module, top_level_only=True)}
    assert not roots & HEAVY


def test_there_is_no_utils():
    assert not [path for path in modules() if path.stem in ("utils", "helpers", "misc", "common")]


def test_there_are_at_most_twelve_floors():
    assert len(FLOORS) <= 12
    parts = {part_of(path) for path in modules()} - {"__init__"}
    named = [name for floor in FLOORS for name in floor]
    assert sorted(named) == sorted(parts)


def test_no_function_has_more_than_seven_parameters():
    wide = {
        f"{path.relative_to(PACKAGE)}: {function.name}"
        for path in modules()
        for function in functions_of(path)
        if len(parameters_of(function)) > 7 and not is_command(function)
    }
    assert not wide


def test_few_functions_take_the_settings_of_a_model():
    """The verbs and what opens a model do; all others take the model."""
    takers = {
        f"{path.relative_to(PACKAGE)}: {function.name}"
        for path in modules()
        for function in functions_of(path)
        for one in parameters_of(function)
        if one.annotation is not None and "ModelSettings" in ast.unparse(one.annotation)
    }
    assert 0 < len(takers) < 12, sorted(takers)


def test_no_file_is_long():
    sizes = {str(path.relative_to(PACKAGE)): len(path.read_text("utf-8").splitlines()) for path in modules()}
    assert max(sizes.values()) <= 400, max(sizes, key=sizes.__getitem__)
    assert sorted(sizes.values())[len(sizes) // 2] <= 150


def test_the_help_loads_nothing_heavy():
    found = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True).stderr.split()
    assert "typer" in found
    assert not HEAVY & set(found)

"""The arrows between the parts point down: proved by reading the imports."""

import ast
from pathlib import Path

import pytest

import recycle_cli

PACKAGE = Path(recycle_cli.__file__).parent

ROWS = [
    ["__main__"],
    ["cli"],
    ["plan"],
    ["serve", "bench", "sweep"],
    ["predict"],
    ["finetune", "scorer"],
    ["training"],
    ["precompute", "tasks"],
    ["batches", "trunk"],
    ["runs", "store"],
    ["corpus", "models", "runtime"],
    ["recipe", "keys", "reports", "errors", "settings"],
]
"""Top to bottom. A part imports from rows below its own; the bottom row only `errors` besides nothing of ours."""

LIGHT = {"cli", "__main__", "reports", "errors", "settings", "signals", "__init__"}
"""What `recycle --help` loads; nothing heavy may be imported there at module level."""

HEAVY = {"torch", "transformers", "torchvision", "zarr", "datasets", "numpy"}


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


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_arrow_points_down(module):
    part = part_of(module)
    if part == "__init__":
        return
    row = next((index for index, parts in enumerate(ROWS) if part in parts), None)
    assert row is not None, f"{part} has no place in the architecture: name its row"
    below = {name for parts in ROWS[row + 1 :] for name in parts} | {part, "__version__"}
    if row == len(ROWS) - 1:
        below |= {"errors"}
    used = {name.split(".")[1] for name in imports_of(module) if name.startswith("recycle_cli.")}
    assert used <= below, f"{part} imports {sorted(used - below)}, which do not lie below it"


def test_no_cycles_between_modules():
    names = {".".join(("recycle_cli", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in modules()}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    graph = {
        name: {used for used in imports_of(path) if used in names and used != name} for name, path in names.items()
    }
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

"""The scripts in experiments/ still find what they take from the package."""

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

EXPERIMENTS = sorted(Path(__file__).parent.parent.glob("experiments/*.py"))


def taken(tree: ast.Module) -> set[tuple[str, str]]:
    """Each name that is imported from a module of the package, or asked of such a module, with the module."""
    found, modules = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recycle_cli"):
            found |= {(node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {one.asname: one.name for one in node.names if one.asname and one.name.startswith("recycle_cli")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            found.add((modules[node.value.id], node.attr))
    return found


def is_there(module: str, name: str) -> bool:
    """Whether a module has the name, or is a package with a module of this name, be it imported already or not."""
    return hasattr(import_module(module), name) or find_spec(f"{module}.{name}") is not None


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_what_an_experiment_takes_from_the_package_is_there(path):
    names = taken(ast.parse(path.read_text(encoding="utf-8")))
    assert not [f"{module}.{name}" for module, name in sorted(names) if not is_there(module, name)]


def test_experiments_are_found():
    assert len(EXPERIMENTS) > 10
    assert is_there("recycle_cli.models.text", "split")
    assert not is_there("recycle_cli.models.text", "no_such_name")
    assert ("recycle_cli.training.loop", "time") in taken(ast.parse("import recycle_cli.training.loop as l\nl.time"))

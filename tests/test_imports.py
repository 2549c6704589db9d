"""The two rules of imports: the core knows nothing of what surrounds it, and no import is hidden in a function."""

import ast
from collections.abc import Iterable

import pytest
from conftest import ROOT

AROUND = {"inference", "report", "web", "evaluate", "export", "inspect_ckpt", "check_net", "schema"}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "srcnn").rglob("*.py"))
}
CORE = {name for name in FILES if not AROUND & {*name.split(".")}}
Import = ast.Import | ast.ImportFrom


def statements(nodes: Iterable[ast.AST]) -> list[Import]:
    return [statement for node in nodes for statement in ast.walk(node) if isinstance(statement, Import)]


def modules_of(statement: Import) -> set[str]:
    """The modules of ours that an import statement loads, but for the root, which imports none of them."""
    if isinstance(statement, ast.Import):
        found = {alias.name for alias in statement.names}
    else:
        found = {f"{statement.module}.{alias.name}" for alias in statement.names} | {statement.module or ""}
    return found & FILES.keys() - {"srcnn"}


TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}
GRAPH = {name: set().union(*map(modules_of, statements([tree]))) - {name} for name, tree in TREES.items()}


def test_the_core_imports_nothing_from_around_it() -> None:
    found = {name: GRAPH[name] - CORE for name in CORE - {"srcnn"}}  # the root has `srcnn.enlarge` and the like
    assert not {name: outside for name, outside in found.items() if outside}


def test_there_is_no_circle() -> None:
    """Those in functions and for types alone included."""
    graph = dict(GRAPH)
    while free := {name for name, others in graph.items() if not others}:
        graph = {name: others - free for name, others in graph.items() if name not in free}
    assert not graph, "in a circle, or importing from one"


@pytest.mark.parametrize("name", FILES)
def test_an_import_in_a_function_says_why(name: str) -> None:
    """In a comment beside one of them, or in the module's docstring."""
    functions = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.FunctionDef)]
    inside, lines = statements(functions), FILES[name].read_text().splitlines()
    commented = any("#" in lines[statement.lineno - 1] for statement in inside)
    assert not inside or commented or "start" in (ast.get_docstring(TREES[name]) or "")

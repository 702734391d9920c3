"""The rules of the house, read from the source: nothing here imports or runs it."""

import ast
import functools
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from envs.registry import ENVIRONMENTS

ROOT = Path(__file__).parents[1]
#: From the ground up: a room may import from itself and from those before it.
ROOMS = ("envs", "jaxmarl_fac", "baselines", "experiments")
#: Imports by name: function in which module -> why.
DYNAMIC_IMPORTS = {
    "jaxmarl_fac.tracking": "wandb takes seconds to import, and most runs never need it",
    "jaxmarl_fac.saved": "a saved experiment names the classes it is made of",
    "envs.outside": "games and algorithms of somebody else are named on the command line",
    "envs": "jumanji starts JAX's backends when imported, which sweep.py must not do",
    "experiments.sweep_engines": "ray and submitit are optional extras, and take seconds to import",
    "envs.adapters.from_jaxmarl": "jaxmarl is an optional extra, and takes seconds to import",
}
#: The engine's wings: which others each may import from. "" is the top level.
WINGS = {
    "": {"memory"},
    "memory": {""},
    "exact": {""},
    "soft": {"", "exact"},
    "report": {""},
}
#: What the engine may see of the games: what they all have in common, and finite models for exact planning.
SEEN_BY_ENGINE = {
    "envs.base": {"Observation", "TeamEnvironment"},
    "envs.errors": {"BadInputError"},
    "envs.lazy": {"lazily"},
    "envs.memory": {"check_fits"},
    "envs.outside": {"find_outside"},
    "envs.ranges": {
        "KEY",
        "Count",
        "Constraint",
        "Probability",
        "Seed",
        "above",
        "at_least",
        "between",
        "check_value",
    },
    "envs.stochastic_games": {"GameModel"},
    "envs.tables": {"SUM_TOLERANCE", "check_probabilities"},
    "envs.team_mdp": {"TeamModel"},
    "envs.team_pomdp": {"HiddenModel"},
}


def modules(*rooms: str) -> dict[str, Path]:
    """Every module of the rooms by its dotted name."""
    found = {}
    for room in rooms:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules(*ROOMS)
every_module = pytest.mark.parametrize("name", MODULES)


@functools.cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def imports(tree: ast.Module, name: str, package: bool = False) -> Iterator[tuple[str, str | None]]:
    """`(module, name taken from it or None)` for every import statement, wherever it stands.

    `name` is the module's own, and `package` whether it is an `__init__`, for relative imports.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: len(name.split(".")) - node.level + package] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((module, alias.name) for alias in node.names)


def imports_of(name: str) -> list[tuple[str, str | None]]:
    return list(imports(tree_of(name), name, MODULES[name].name == "__init__.py"))


def upward(name: str, imported: list[tuple[str, str | None]]) -> list[str]:
    """The imports of module `name` that point to a room above its own, or to the tests."""
    above = {*ROOMS[ROOMS.index(name.split(".")[0]) + 1 :], "tests"}
    # A script's folder stands first on sys.path: without its name a module would be there twice.
    above |= {other.split(".")[1] for other in MODULES if other.startswith("experiments.")}
    return [module for module, _ in imported if module.split(".")[0] in above]


def imports_inside_functions(tree: ast.Module) -> list[int]:
    """Lines of import statements inside functions."""
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return [
        node.lineno
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def imports_by_name(tree: ast.Module) -> list[int]:
    """Lines that use `import_module` or `__import__`."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id in ("import_module", "__import__"))
        or (isinstance(node, ast.Attribute) and node.attr in ("import_module", "__import__"))
    ]


def text_without_encoding(tree: ast.Module) -> list[int]:
    """Lines that read or write text in whatever encoding the machine's locale has."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func).split(".")[-1]
        keywords = {keyword.arg for keyword in node.keywords}
        modes = [a.value for a in node.args + [k.value for k in node.keywords] if isinstance(a, ast.Constant)]
        binary = any("b" in str(mode) for mode in modes) or ast.unparse(node.func) == "os.open"
        method = called in ("read_text", "write_text") and isinstance(node.func, ast.Attribute)
        opened = called in ("open", "fdopen") and not binary
        if (method or opened or "text" in keywords) and "encoding" not in keywords:
            found.append(node.lineno)
    return found


def strings(tree: ast.Module) -> list[str]:
    """Every string of the code, docstrings apart."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


def names_of_games_and_papers(tree: ast.Module) -> list[str]:
    """Strings of the code that name an environment's id, a reproduction script, or a paper's figure."""
    ids = "|".join(map(re.escape, ENVIRONMENTS))
    named = re.compile(rf"(?<![\w-])({ids})(?![\w-])|reproduce_\w+|(?<!\w)(table|fig)_?\d")
    return [text for text in strings(tree) if named.search(text)]


def test_there_are_modules_in_every_room():
    assert all(any(name.startswith(f"{room}.") for name in MODULES) for room in ROOMS)


@every_module
def test_imports_point_down(name):
    assert upward(name, imports_of(name)) == []


@every_module
def test_no_import_inside_a_function(name):
    assert imports_inside_functions(tree_of(name)) == []
    if name not in DYNAMIC_IMPORTS:
        assert imports_by_name(tree_of(name)) == []


@every_module
def test_text_is_utf_8_whatever_the_locale(name):
    assert text_without_encoding(tree_of(name)) == []


@every_module
def test_every_module_says_what_it_is(name):
    assert (ast.get_docstring(tree_of(name)) or "").strip()


def test_no_import_goes_round_in_a_circle():
    graphlib.TopologicalSorter({name: seen_by(name) for name in MODULES}).prepare()


def wing(name: str) -> str | None:
    """The wing of the engine that a module is in, "" for its top level; None outside the engine."""
    room, *inner = name.split(".")
    if room != "jaxmarl_fac":
        return None
    return inner[0] if inner and inner[0] in WINGS else ""


def seen_by(name: str) -> set[str]:
    """The modules that a module imports, or takes names from."""
    pairs = imports_of(name)
    return {inner if (inner := f"{module}.{taken}") in MODULES else module for module, taken in pairs}


@pytest.mark.parametrize("name", modules("jaxmarl_fac"))
def test_wings_import_only_what_they_may(name):
    own = wing(name)
    assert own is not None
    assert [module for module in seen_by(name) if wing(module) not in (None, own, *WINGS[own])] == []


def test_the_loop_is_the_top_level_and_its_memories():
    reached, new = set(), {"jaxmarl_fac.loop"}
    while new:
        reached |= new
        new = {module for name in new for module in seen_by(name) if wing(module) is not None} - reached
    assert {wing(module) for module in reached} == {"", "memory"}


@pytest.mark.parametrize("name", modules("jaxmarl_fac"))
def test_the_engine_knows_no_game_and_no_paper(name):
    seen = [(module, taken) for module, taken in imports_of(name) if module.split(".")[0] == "envs"]
    assert [taken for taken in seen if taken[1] not in SEEN_BY_ENGINE.get(taken[0], ())] == []
    assert names_of_games_and_papers(tree_of(name)) == []


@functools.cache
def classes() -> dict[str, ast.ClassDef]:
    """Every class by its name."""
    return {
        node.name: node
        for name in MODULES
        for node in ast.walk(tree_of(name))
        if isinstance(node, ast.ClassDef)
    }


def documented(owner: ast.ClassDef, method: str, known: dict[str, ast.ClassDef]) -> bool:
    """Whether a class, or one that it builds on, has a docstring for a method."""
    for node in owner.body:
        if isinstance(node, ast.FunctionDef) and node.name == method and ast.get_docstring(node):
            return True
    bases = [ast.unparse(base).split("[")[0].split(".")[-1] for base in owner.bases]
    return any(base in known and documented(known[base], method, known) for base in bases)


def methods_without_docstring(tree: ast.Module, known: dict[str, ast.ClassDef]) -> list[str]:
    """Public methods that say nothing and override nothing that does; ruff cannot tell (D102 is off)."""
    return [
        f"{owner.name}.{node.name}"
        for owner in tree.body
        if isinstance(owner, ast.ClassDef) and not owner.name.startswith("_")
        for node in owner.body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and not documented(owner, node.name, known)
    ]


@every_module
def test_every_public_method_says_what_it_does(name):
    assert methods_without_docstring(tree_of(name), classes()) == []


# The checks themselves


def test_methods_without_docstring_are_found():
    code = """class A:
    def said(self): "This."
    def silent(self): pass
class B(A):
    def said(self): pass
    def own(self): pass
"""
    tree = ast.parse(code)
    known = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assert methods_without_docstring(tree, known) == ["A.silent", "B.own"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import baselines.qmix", ["baselines.qmix"]),
        ("from experiments import train", ["experiments"]),
        ("if TYPE_CHECKING:\n    from baselines import make", ["baselines"]),
        ("import train", ["train"]),
        ("from tests.reference import grid", ["tests.reference"]),
        ("import envs.base, jax\nfrom jaxmarl_fac.losses import chosen\nfrom . import losses", []),
    ],
)
def test_upward_imports_are_found(source, found):
    name = "jaxmarl_fac.loop"
    assert upward(name, list(imports(ast.parse(source), name))) == found


@pytest.mark.parametrize(
    ("source", "name", "package", "found"),
    [
        ("from .losses import chosen", "jaxmarl_fac.loop", False, ("jaxmarl_fac.losses", "chosen")),
        ("from ..baselines import make", "jaxmarl_fac.loop", False, ("baselines", "make")),
        ("from . import losses", "jaxmarl_fac", True, ("jaxmarl_fac", "losses")),
    ],
)
def test_relative_imports_are_resolved(source, name, package, found):
    assert list(imports(ast.parse(source), name, package)) == [found]


def test_hidden_imports_are_found():
    assert imports_inside_functions(ast.parse("def f():\n    if True:\n        import os")) == [3]
    assert imports_by_name(ast.parse("import importlib\nx = importlib.import_module('os')")) == [2]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("path.read_text()", True),
        ("path.read_text(encoding='utf-8')", False),
        ("(a / b).write_text(json.dumps(x))", True),
        ("write_text(path, x)", False),
        ("open(path)", True),
        ("path.open('w')", True),
        ("path.open('wb')", False),
        ("open(path, mode='rb')", False),
        ("open(path, encoding='utf-8')", False),
        ("os.open(path, os.O_WRONLY)", False),
        ("subprocess.run(command, text=True)", True),
    ],
)
def test_text_without_an_encoding_is_found(code, found):
    assert text_without_encoding(ast.parse(code)) == [1] * found


def test_names_of_games_and_papers_are_found():
    code = '"""Of matrix-qtran."""\nx = ["the matrix-qtran game", "table6", "my-matrix-qtran", "squeeze"]'
    assert names_of_games_and_papers(ast.parse(code)) == ["the matrix-qtran game", "table6", "squeeze"]

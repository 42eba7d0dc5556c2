"""Imports only go down, and every file keeps to the sizes of the house."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOORS = ("main", "rank_generation")

# What each room may import from, besides itself.
ALLOWED = {
    "doors": {"commands"},
    "commands": {"paper", "training", "pruning", "rank", "data", "metrics", "models", "runs"},
    "paper": {"metrics", "runs"},
    "training": {"metrics", "runs"},
    "pruning": {"models", "runs"},
    "rank": {"models", "runs"},
    "data": {"runs"},
    "metrics": {"runs"},
    "models": {"runs"},
    "runs": set(),
}
MAX_FUNCTION, MAX_MODULE, MAX_DOOR, MAX_LINE = 60, 350, 150, 100


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


HOUSE = [*files("models", "utils"), *(ROOT / f"{door}.py" for door in DOORS)]
MODULES = {module_name(path): path for path in HOUSE}
EVERYTHING = [*HOUSE, *files("tests")]


def parsed(path):
    return ast.parse(path.read_text(), str(path))


def room(module):
    """The room that a module of this repository stands in; None for any other module."""
    first, *rest = module.split(".")
    if first in DOORS:
        return "doors"
    if first == "utils":
        return rest[0] if rest else "utils"
    return first if first in ("models", "tests") else None


def imported_modules(tree, module):
    """Return the full name of every module that a syntax tree imports, wherever in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*package, *([node.module] if node.module else [])])
            names = {f"{source}.{alias.name}" for alias in node.names}
            found |= {name for name in names if name in MODULES} or {source}
    return found


def forbidden_edges(tree, module):
    """Return the imports of a module that go up or sideways."""
    here = room(module)
    return [
        f"{module} imports {other}"
        for other in sorted(imported_modules(tree, module))
        if room(other) not in (None, here, *ALLOWED[here])
    ]


def test_imports_only_go_down():
    edges = []
    for name, path in MODULES.items():
        if path.stem != "__init__":
            edges += forbidden_edges(parsed(path), name)
    assert edges == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("utils.training.loop", "from utils.data.load import load_dataset"),
        ("utils.training.loop", "import utils.removal.masks"),
        ("utils.training.loop", "from utils.pruning import masks"),
        ("utils.training.loop", "from ..pruning import masks"),
        ("utils.training.loop", "from ..pruning.masks import ChannelMasks"),
        ("utils.training.loop", "def f():\n    if x:\n        import models.vgg"),
        ("utils.pruning.plan", "from utils.rank.rank_files import read_ranks"),
        ("utils.rank.estimation", "from utils.removal.masks import ChannelMasks"),
        ("utils.metrics.cost", "from models import registry"),
        ("utils.paper.tables", "from utils.training.loop import fit"),
        ("models.vgg", "from utils.removal.masks import ChannelMasks"),
        ("utils.runs.log", "from utils.metrics.cost import Cost"),
        ("utils.data.load", "import utils"),
        ("utils.data.load", "from utils.options.inputs import note"),
        ("utils.commands.prune", "import main"),
        ("utils.commands.prune", "import tests.reference"),
        ("main", "from utils.pruning.plan import PruningPlan"),
        ("main", "import rank_generation, utils.runs.log"),
    ],
)
def test_an_import_that_goes_up_or_sideways_is_found(module, source):
    assert len(forbidden_edges(ast.parse(source), module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("main", "import sys\nfrom utils.commands.prune import prune_command"),
        ("utils.commands.prune", "from utils.rank import rank_files\nimport models.vgg"),
        ("utils.training.loop", "from . import schedules\nfrom .stage import Stage\nimport torch"),
        ("utils.graph.channel_graph", "from utils.runs.borrowed_state import evaluating"),
        ("utils.paper.compare", "from utils.metrics.accuracy import Accuracy"),
    ],
)
def test_an_import_that_goes_down_is_fine(module, source):
    assert forbidden_edges(ast.parse(source), module) == []


def test_no_import_goes_round_in_a_circle():
    edges = {name: imported_modules(parsed(path), name) for name, path in MODULES.items()}
    graphlib.TopologicalSorter(edges).prepare()


def test_no_code_hides_in_init():
    for path in EVERYTHING:
        if path.stem == "__init__":
            assert path.read_text().strip() == "", path


def test_utils_holds_rooms_of_two_modules_or_more_and_nothing_loose():
    folders = {path for path in (ROOT / "utils").iterdir() if any(path.glob("*.py"))}
    assert {path.name for path in folders} == ALLOWED.keys() - {"doors", "models"}
    assert [p.name for p in (ROOT / "utils").glob("*.py")] == ["__init__.py"]
    for folder in folders:
        assert len([p for p in folder.glob("*.py") if p.stem != "__init__"]) >= 2, folder


def test_functions_and_modules_are_short():
    too_long = []
    for path in EVERYTHING:
        limit = MAX_DOOR if path.stem in DOORS else MAX_MODULE
        lines = path.read_text().splitlines()
        if len(lines) > limit:
            too_long.append(f"{path.relative_to(ROOT)}: {len(lines)} lines, at most {limit}")
        too_long += [
            f"{path.relative_to(ROOT)}:{number}: {len(line)} columns, at most {MAX_LINE}"
            for number, line in enumerate(lines, start=1)
            if len(line) > MAX_LINE
        ]
        too_long += [
            f"{path.relative_to(ROOT)}: {node.name}: {length} lines, at most {MAX_FUNCTION}"
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (length := node.end_lineno - node.lineno + 1) > MAX_FUNCTION
        ]
    assert too_long == []


def test_every_module_says_what_it_owns():
    modules = [path for path in EVERYTHING if path.stem != "__init__"]
    assert [path for path in modules if not ast.get_docstring(parsed(path))] == []


def test_every_public_function_and_class_has_a_docstring():
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    silent = [
        f"{name}.{node.name}"
        for name, path in MODULES.items()
        if room(name) != "doors"
        for node in parsed(path).body
        if isinstance(node, kinds) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert silent == []

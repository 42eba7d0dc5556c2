"""Imports only go down, and every file keeps to the sizes of the house.

`python -m tests.test_layers` prints each room with its lines, and whom it imports by how many
files.
"""

import ast
import graphlib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOORS = ("main", "rank_generation")

# Rooms by floors, from the top: a room may import from the floors below it.
FLOORS = (
    ("doors", "benchmarks"),
    ("commands", "library"),
    ("reports",),
    ("planning",),
    ("options",),
    ("pruning", "removal", "rank", "training", "paper"),
    ("graph", "metrics"),
    ("models", "data", "runs"),
)
# What a room may import from on its own floor, and the doors, which do nothing themselves.
SIDEWAYS = {
    "paper": {"pruning"},  # its layouts of rates are spelled in the grammar of rates
    "pruning": {"removal"},  # a scan, and weights that go, are masks that are put on
    "metrics": {"graph"},  # what is a filter of a layer
    "data": {"runs"},  # how files are read
}
DOORS_LEAD_TO = {"commands", "reports", "options"}


def allowed(room):
    """The rooms that a room may import from, besides itself."""
    if room == "doors":
        return DOORS_LEAD_TO
    (floor,) = (number for number, rooms in enumerate(FLOORS) if room in rooms)
    below = {other for rooms in FLOORS[floor + 1 :] for other in rooms}
    return below | SIDEWAYS.get(room, set())


MAX_FUNCTION, MAX_MODULE, MAX_COMMAND, MAX_DOOR, MAX_LINE = 60, 350, 250, 150, 100


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
        return rest[0] if rest else "utils"  # a room, or the library
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
        if room(other) not in (None, here, *allowed(here))
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
        ("utils.training.loop", "from utils.options.images import Images"),
        ("utils.training.loop", "import utils.removal.masks"),
        ("utils.training.loop", "from utils.pruning import masks"),
        ("utils.training.loop", "from ..pruning import masks"),
        ("utils.training.loop", "from ..pruning.masks import ChannelMasks"),
        ("utils.training.loop", "def f():\n    if x:\n        import utils.planning.plan"),
        ("utils.pruning.plan", "from utils.rank.rank_files import read_ranks"),
        ("utils.pruning.plan", "from utils.paper.rates import read_rates"),
        ("utils.removal.masks", "from utils.pruning.plan import PruningPlan"),
        ("utils.graph.groups", "from utils.metrics.cost import Cost"),
        ("utils.options.devices", "from utils.planning.plan import make_plan"),
        ("utils.planning.plan", "from utils.commands.scan import scan_command"),
        ("utils.reports.board", "from utils.commands.compare import compare_command"),
        ("utils.reports.board", "from utils.benchmarks import rank_benchmark"),
        ("utils.commands.prune", "from utils.library import describe"),
        ("utils.rank.estimation", "from utils.removal.masks import ChannelMasks"),
        ("utils.paper.tables", "from utils.training.loop import fit"),
        ("models.vgg", "from utils.removal.masks import ChannelMasks"),
        ("utils.runs.log", "from utils.metrics.cost import Cost"),
        ("utils.data.load", "import utils"),
        ("utils.data.load", "from utils.options.networks import RESULTS"),
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
        ("utils.paper.rates", "from utils.pruning.compress_rates import parse_rates"),
        ("utils.planning.plan", "from utils.removal.masks import ChannelMasks"),
        ("utils.benchmarks.rank_benchmark", "import utils.commands.door, models.registry"),
    ],
)
def test_an_import_that_goes_down_is_fine(module, source):
    assert forbidden_edges(ast.parse(source), module) == []


def test_no_import_goes_round_in_a_circle():
    edges = {name: imported_modules(parsed(path), name) for name, path in MODULES.items()}
    graphlib.TopologicalSorter(edges).prepare()


def test_networks_are_looked_up_where_they_are_opened_and_nowhere_else():
    lookups = {"models.registry", "models.specs"}
    users = {
        name
        for name, path in MODULES.items()
        if room(name) != "models" and imported_modules(parsed(path), name) & lookups
    }
    assert users == {"utils.options.data_options", "utils.options.networks"}


def test_below_the_options_networks_are_taken_whole_not_by_name():
    (floor,) = (number for number, rooms in enumerate(FLOORS) if "options" in rooms)
    below = {other for rooms in FLOORS[floor + 1 :] for other in rooms}
    by_name = [
        f"{name}.{node.name}"
        for name, path in MODULES.items()
        if room(name) in below | {"planning", "reports"}
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef)
        and "arch" in {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
    ]
    assert by_name == []


def test_no_code_hides_in_init():
    for path in EVERYTHING:
        if path.stem == "__init__":
            assert path.read_text().strip() == "", path


def test_utils_holds_rooms_of_two_modules_or_more_and_nothing_loose():
    folders = {path for path in (ROOT / "utils").iterdir() if any(path.glob("*.py"))}
    rooms = {room for floor in FLOORS for room in floor}
    assert {path.name for path in folders} == rooms - {"doors", "library", "models"}
    assert {p.name for p in (ROOT / "utils").glob("*.py")} <= {"__init__.py", "library.py"}
    for folder in folders:
        assert len([p for p in folder.glob("*.py") if p.stem != "__init__"]) >= 2, folder


def limit_of(path):
    if path.stem in DOORS:
        return MAX_DOOR
    return MAX_COMMAND if path.parent == ROOT / "utils" / "commands" else MAX_MODULE


def test_functions_and_modules_are_short():
    too_long = []
    for path in EVERYTHING:
        limit = limit_of(path)
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


def test_the_library_is_imports_and_nothing_else():
    path = ROOT / "utils" / "library.py"
    if not path.exists():
        pytest.skip("no utils/library.py yet")
    kinds = ast.Import | ast.ImportFrom | ast.Expr | ast.Assign
    assert [node for node in parsed(path).body if not isinstance(node, kinds)] == []


def rooms_and_imports():
    """Yield each room from the top, its lines, and {room it imports from: by how many files}."""
    names = {name: path for name, path in MODULES.items() if path.stem != "__init__"}
    for here in (room for floor in FLOORS for room in floor):
        own = {name: path for name, path in names.items() if room(name) == here}
        used = Counter(
            other
            for name, path in own.items()
            for other in {room(found) for found in imported_modules(parsed(path), name)}
            if other not in (None, here)
        )
        yield here, sum(len(path.read_text().splitlines()) for path in own.values()), used


if __name__ == "__main__":
    for here, lines, used in rooms_and_imports():
        words = ", ".join(f"{other} {count}" for other, count in used.most_common())
        print(f"{here:10s} {lines:5d} lines; imports from: {words or 'nobody'}")

"""The house's floors: a module imports from lower floors only, and siblings on one floor do not know one another."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "fedlit"

# From the cellar up; a folder of the package is one room.
FLOORS = (
    {"errors", "interrupt", "memory", "schedules", "scores", "slurm", "units"},
    {"config", "run_lock"},
    {"arguments", "low_rank", "seeding", "tensors"},
    {"lora_layer"},
    {"communication", "data", "metrics", "models", "run_folder", "run_status", "server"},
    {"cohort", "corrections", "partition", "server_optimizers", "sweeps"},
    {"adapters", "aggregation", "analysis", "deviation", "inputs", "optimizers", "prefetch", "tasks"},
    {"callbacks", "export", "methods", "report"},
    {"client", "dashboard", "exchange"},
    {"best_round", "checkpoint", "evaluation"},
    {"federation"},
    {"assembly"},
    {"sizing"},
    {"launch"},
    {"command"},
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """Return the name of the folder or module right below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(source: str) -> set[str]:
    """Return the rooms of fedlit that a source imports, at its top or inside a function."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "absolute imports only"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "fedlit" else [node.module]
            )
            modules.update(names)
    return {module.split(".")[1] for module in modules if module.startswith("fedlit.")}


def climbs(path: Path, source: str) -> set[str]:
    """Return the imports of a source that do not go down."""
    own = room(path)
    return {other for other in imported_rooms(source) - {own} if LEVEL[other] >= LEVEL[own]}


@pytest.mark.parametrize("path", [path for path in FILES if path != PACKAGE / "__init__.py"], ids=str)
def test_imports_go_down(path: Path) -> None:
    assert room(path) in LEVEL, f"{room(path)} has no floor yet: give it one in FLOORS"
    assert climbs(path, path.read_text()) == set()


def test_a_climb_is_seen() -> None:
    assert climbs(PACKAGE / "tensors.py", "from fedlit.federation import Federation") == {"federation"}
    assert climbs(PACKAGE / "adapters" / "lora.py", "from fedlit import aggregation") == {"aggregation"}


def test_only_communication_names_torch_distributed() -> None:
    names = [path.name for path in FILES if "torch.distributed" in path.read_text() and path.name != "communication.py"]
    assert names == []


def test_files_and_functions_are_small() -> None:
    """Up to 350 lines and 80; the aim is 300 and 60."""
    large = [path.name for path in FILES if path.read_text().count("\n") > 350]
    long = [
        f"{path.name}:{node.name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None and node.end_lineno - node.lineno > 80
    ]
    assert (large, long) == ([], [])


@pytest.mark.parametrize("module", ["fedlit.config", "fedlit.inputs"])
def test_mistakes_are_told_before_torch_is_imported(module: str) -> None:
    heavy = ("torch", "lightning", "transformers", "datasets")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


def test_libraries_stay_out_of_one_another() -> None:
    """Each heavy library is imported by the room that is there for it."""
    owners = {
        "peft": {"adapters"},
        "transformers": {"models", "launch"},
        "wandb": {"callbacks", "dashboard"},
        "matplotlib": {"analysis"},
        "rich": {"callbacks", "launch", "sweeps"},
        "sacrebleu": {"metrics"},
        "nltk": {"metrics"},
        "datasets": {"data", "prefetch"},
        "huggingface_hub": {"prefetch"},
        "wandb_workspaces": {"dashboard"},
        "plotly": {"dashboard"},
        "jinja2": {"dashboard"},
        "galore_torch": {"optimizers"},
        "PIL": {"data"},
        "sklearn": {"data", "partition"},
        "scipy": {"metrics", "report"},
    }
    found: dict[str, set[str]] = {library: set() for library in owners}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for library in {name.split(".")[0] for name in names} & owners.keys():
                found[library].add(room(path))
    assert {library: rooms - owners[library] for library, rooms in found.items() if rooms - owners[library]} == {}

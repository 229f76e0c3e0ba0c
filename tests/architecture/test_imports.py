"""The house's floors: a module imports from lower floors only, and siblings on one floor do not know one another."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "fedlit"

# From the cellar up. A room is a folder or a module of the package; one inside a room has a floor of its own where it
# is named here, else its folder's. A star stands for any folder.
FLOORS = (
    {"lazy", "lines", "units", "seeding", "ranges"},
    {"client_names"},
    {"errors", "options"},
    {"privacy", "secure", "statistics"},
    {
        "config.data_schema",
        "config.method_schema",
        "config.privacy_schema",
        "adapters.options",
        "client.optimizers.options",
        "round.rules.options",
        "round.availability.options",
    },
    {"config.schema"},
    {"shipped"},
    {"outside", "outside.kinds"},
    {"outside.shape"},
    {
        "registry",
        "words",
        "process.slurm",
        "process.interrupt",
        "process.storage",
        "store.layout",
        "store.round_lines",
        "store.task_version",
    },
    {"recipes"},
    {"outside.loading", "outside.faults"},
    {"outside.record"},
    {"data"},
    {"tasks.spec"},
    {"tasks.causal_lm.forms"},
    {"tasks.*.spec"},
    {"tasks.registry"},
    {"scores"},
    {"config", "store.clients", "store.example_scores", "store.lock", "store.records", "store.samples"},
    {"arguments", "caller", "process", "algebra", "privacy.claim"},
    {"store.environment", "store.partition"},
    {"store.cohort_file"},
    {"rules", "store.folder", "store.status"},
    {"data.own_rows", "data.sources", "metrics", "models"},
    {"cards", "general", "partition", "machine"},
    {"adapters", "inputs", "tasks"},
    {"round.availability"},
    {"round.payload"},
    {"round.server"},
    {"round"},
    {"client.corrections", "client.optimizers", "client.schedules", "store"},
    {"method", "lab.sweeps"},
    {"private_methods"},
    {"client", "methods", "lab.analysis", "lab.prefetch"},
    {"round.loop", "lab.callbacks", "lab.report"},
    {"lab"},
    {"analysing", "extras", "planning"},
    {"scheduling", "workload"},
    {"private_run"},
    {"assembly", "sizing"},
    {"versioning"},
    {"sites"},
    {"budget", "launch", "exported", "restoring", "commands.rehearsal"},
    {"lab.analyses", "result"},
    {"running"},
    {"commands.endings"},
    {"settings"},
    {"api", "commands", "plugins"},
    {"cli"},
    {"__main__"},
)


def rooms_of(name: str) -> list[str]:
    """Return the rooms that a name in FLOORS stands for."""
    if "*" not in name:
        return [name]
    paths = PACKAGE.glob(f"{name.replace('.', '/')}.py")
    return [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in paths]


LEVEL = {room: level for level, names in enumerate(FLOORS) for name in names for room in rooms_of(name)}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(module: str) -> str:
    """Return the room of a module such as `fedlit.round.rules.fedavg`: the longest name that has a floor."""
    parts = module.split(".")[1:]
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((name for name in names if name in LEVEL), parts[0])


def room_of(path: Path) -> str:
    """Return the room of a file."""
    return room(".".join(path.relative_to(REPOSITORY).with_suffix("").parts))


def imported_modules(source: str) -> set[str]:
    """Return the modules of fedlit that a source imports, at its top or inside a function, and the names it takes."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "absolute imports only"
            modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {module for module in modules if module.startswith("fedlit.") and not module.startswith("fedlit.__")}


def climbs(path: Path, source: str) -> set[str]:
    """Return the imports of a source that do not go down: to a higher floor, or to another folder on its own."""
    own = room_of(path)
    rooms = {room(module) for module in imported_modules(source)} - {own}
    return {other for other in rooms if LEVEL[other] >= LEVEL[own]}


@pytest.mark.parametrize("path", [path for path in FILES if path != PACKAGE / "__init__.py"], ids=str)
def test_imports_go_down(path: Path) -> None:
    assert room_of(path) in LEVEL, f"{room_of(path)} has no floor yet: give it one in FLOORS"
    assert climbs(path, path.read_text()) == set()


def test_a_climb_is_seen() -> None:
    assert climbs(PACKAGE / "algebra" / "tensors.py", "from fedlit.round.loop import Federation") == {"round.loop"}
    assert climbs(PACKAGE / "adapters" / "lora.py", "from fedlit.round import rules") == {"round"}
    task = "from fedlit.tasks.causal_lm.task import CausalLM"
    assert climbs(PACKAGE / "tasks" / "causal_lm" / "spec.py", task) == {"tasks"}
    for_the_checker = "if TYPE_CHECKING:\n    from fedlit.config import RunConfig"
    assert climbs(PACKAGE / "tasks" / "spec.py", for_the_checker) == {"config"}


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


TORCH_FREE = ("config", "config.topics", "options", "recipes", "inputs", "tasks.registry", "data.prompts")


@pytest.mark.parametrize("module", [f"fedlit.{name}" for name in TORCH_FREE])
def test_mistakes_are_told_before_torch_is_imported(module: str) -> None:
    heavy = ("torch", "lightning", "transformers", "datasets")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


def test_libraries_stay_out_of_one_another() -> None:
    """Each heavy library is imported by the room that is there for it."""
    owners = {
        "peft": {"adapters"},
        "transformers": {"caller", "cards", "models", "launch"},
        "wandb": {"lab.callbacks", "lab.dashboard"},
        "matplotlib": {"lab.analysis"},
        "rich": {"lab.callbacks", "launch", "lab.sweeps", "commands"},
        "sacrebleu": {"metrics"},
        "nltk": {"metrics"},
        "datasets": {"data", "lab.prefetch"},
        "huggingface_hub": {"cards", "exported", "lab.prefetch"},
        "wandb_workspaces": {"lab.dashboard"},
        "plotly": {"lab.dashboard"},
        "jinja2": {"lab.dashboard", "data"},
        "galore_torch": {"client.optimizers"},
        "PIL": {"data"},
        "sklearn": {"data", "partition"},
        "scipy": {"metrics", "lab.report", "privacy", "statistics"},
    }
    found: dict[str, set[str]] = {library: set() for library in owners}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for library in {name.split(".")[0] for name in names} & owners.keys():
                found[library].add(".".join(path.relative_to(PACKAGE).parts[:-1]) or path.stem)
    assert {library: rooms - owners[library] for library, rooms in found.items() if rooms - owners[library]} == {}

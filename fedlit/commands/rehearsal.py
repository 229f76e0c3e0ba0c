"""What `fedlit run ... dry_run=true` prints; neither Fabric nor a process group is needed for it."""

from rich.console import Console

from fedlit.inputs import Inputs
from fedlit.models.notices import without_progress_bars
from fedlit.planning import make_plan
from fedlit.process.communication import group_shape
from fedlit.sizing import describe_sizes


def dry_run(inputs: Inputs) -> None:
    """Print sizes, bytes and memory of a run; the model is built without its weights."""
    without_progress_bars()
    devices, num_nodes = group_shape(inputs.config.compute)
    console = Console()
    for line in describe_sizes(make_plan(inputs), devices * num_nodes):
        console.print(line, highlight=False, markup=False, soft_wrap=True)

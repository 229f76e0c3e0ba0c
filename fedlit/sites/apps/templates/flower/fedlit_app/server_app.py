"""The centre as a ServerApp."""

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from fedlit.sites.center import open_center
from fedlit_app.carried import config
from fedlit_app.strategy import CenterStrategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds, or those that are left, and write the result into the run folder of config.yaml."""
    options = context.run_config
    timeout_s = float(options["timeout-s"])
    center = open_center(config(), simulated=bool(options["simulated"]))
    strategy = CenterStrategy(center, wait_s=float(options["wait-s"]), timeout_s=timeout_s)
    strategy.start(grid, ArrayRecord(), num_rounds=center.config.num_rounds, timeout=timeout_s)

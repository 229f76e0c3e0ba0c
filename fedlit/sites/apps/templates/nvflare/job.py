"""The federation as a job of NVFlare.

python job.py                                           in NVFlare's simulator, on the rows that `fedlit run` would deal
python job.py --real                                    in the simulator, every site on its own rows of sites.yaml
python job.py --real --export --export-dir jobs         writes jobs/NAME for `nvflare job submit`
"""

import argparse
import re
from pathlib import Path

import yaml
from carried import config
from nvflare.client.config import ExchangeFormat
from nvflare.fuel.utils.constants import FrameworkType
from nvflare.recipe import FedAvgRecipe, SimEnv, set_per_site_config
from server import DONE, CenterAggregator, FirstMessage, OwnMessage

from fedlit.errors import UserError

HERE = Path(__file__).parent
NAME = re.compile("[^a-z0-9]+")
"""What may be no part of a job's name."""
FILES = ("carried.py", "config.yaml", "chat_template.md")
"""What server and sites need beside their own file, as far as it is there."""


def main() -> None:
    """Run the job, or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="sites have rows of their own, as sites.yaml says")
    parser.add_argument(
        "--workspace", type=Path, default=Path("workspace"), help="of the simulator (default: workspace)"
    )
    options = parser.parse_args()
    names = list(_sites())
    recipe = _recipe(simulated=not options.real)
    recipe.execute(SimEnv(clients=names, num_threads=len(names), workspace_root=str(options.workspace.resolve())))


def _recipe(simulated: bool) -> FedAvgRecipe:
    settings, sites = config(), _sites()
    recipe = FedAvgRecipe(
        name=NAME.sub("-", f"fedlit-{settings.method.name}".lower()),
        min_clients=settings.num_clients,
        num_rounds=2 * settings.num_rounds + 32,  # training and scores, and sites that are slow to join
        stop_cond=f"{DONE} >= 1",
        key_metric="",
        train_script=str(HERE / "client.py"),
        aggregator=CenterAggregator(simulated=simulated),
        model_persistor=FirstMessage(),
        framework=FrameworkType.RAW,
        server_expected_format=ExchangeFormat.RAW,
    )
    arguments = {
        name: f"--client {client_id} " + ("--simulated" if simulated else _words(own))
        for client_id, (name, own) in enumerate(sites.items())
    }
    set_per_site_config(recipe, {name: {"train_args": words} for name, words in arguments.items()})
    recipe.add_server_output_filter(OwnMessage(), tasks=["train"])
    for name in (each for each in FILES if (HERE / each).is_file()):
        recipe.add_server_file(str(HERE / name))
        recipe.add_client_file(str(HERE / name))
    return recipe


def _sites() -> dict[str, dict[str, str]]:
    """Return what every site has of its own, by its name at NVFlare; the first is client 0."""
    path = HERE / "sites.yaml"
    sites = {str(name): own or {} for name, own in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items()}
    if len(sites) != (expected := config().num_clients):
        raise UserError(f"{path} names {len(sites)} sites and config.yaml has num_clients={expected}; make them equal")
    return sites


def _words(own: dict[str, str]) -> str:
    """Return a site's options as client.py's. NVFlare splits them at blanks."""
    if spaced := [value for value in own.values() if " " in str(value)]:
        raise UserError(f"sites.yaml: {spaced[0]} has a blank, at which NVFlare would split it; give another path")
    return " ".join(f"--{name} {value}" for name, value in own.items())


if __name__ == "__main__":
    main()

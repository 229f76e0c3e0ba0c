"""The five areas that are searched, by name."""

from collections.abc import Mapping

from cases import Case
from hypothesis.strategies import SearchStrategy
from option_words import configurations
from row_files import row_files
from run_folders import run_folders
from runner import Runner
from script_words import scripts
from split_files import own_split, split_files

AREAS = ("configuration", "rows", "partition", "folders", "scripts")


def strategies(runner: Runner) -> Mapping[str, SearchStrategy[Case]]:
    """Return a strategy for each area; some of them start from the runner's finished runs."""
    own = own_split((runner.template / "runs/pair/pair-fedit/partition.json").read_text())
    found = (configurations(), row_files(), split_files(own), run_folders(runner.template), scripts())
    return dict(zip(AREAS, found, strict=True))

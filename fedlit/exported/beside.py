"""The files beside the weights of a result that was put into another form."""

import shutil
from pathlib import Path

from fedlit.cards.facts import result_facts
from fedlit.cards.files import GENERATION, Facts, read_facts
from fedlit.cards.folder import Reader, complete
from fedlit.exported.found import Result
from fedlit.models import Backbone
from fedlit.round.best_round import BestRound
from fedlit.store.environment import stored_environment
from fedlit.store.partition import DamagedPartition, read_partition
from fedlit.store.records import read_records


def write_beside(result: Result, backbone: Backbone, folder: Path) -> None:
    """Write into a folder that has the weights of a result what lies beside that: how it was trained has not changed.

    A result of an older version has nothing of it, and its run's folder tells.
    """
    is_tokenizer = backbone.tokenizer is not None
    # The tokenizer beside the result has the chat template of the run already.
    reader = Reader(reader=backbone.tokenizer if is_tokenizer else backbone.image_processor, is_tokenizer=is_tokenizer)
    facts = read_facts(result.folder)
    complete(folder, facts or facts_of_run(result), reader)
    if (settings := result.folder / GENERATION).is_file():  # it knows what ends an answer
        shutil.copyfile(settings, folder / GENERATION)


def facts_of_run(result: Result) -> Facts:
    """Return the facts of a finished run's result, from the files of its folder."""
    records = read_records(result.run)
    round_number = records[-1]["round"] if records else result.config.num_rounds
    if result.config.run.result == "best":
        best = BestRound.of(result.config)
        best.see(records)
        round_number = best.number or round_number
    try:
        partition = read_partition(result.run)
    except DamagedPartition:
        partition = None
    return result_facts(
        result.config,
        round_number=round_number,
        records=records,
        partition=partition,
        environment=stored_environment(result.run),
        client_id=result.client_id,
    )

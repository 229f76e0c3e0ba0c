"""The result of a run that is not done: what its newest checkpoint would be exported as."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlit.errors import UserError
from fedlit.exported.found import Result


@contextmanager
def settled(result: Result) -> Iterator[Result]:
    """Give a result whose folder is there: of an unfinished run one that is gone afterwards.

    The run's rows are read for it, since adapters, heads and clients follow from them; its folder is not written to.

    Raises:
        UserError: there is no checkpoint yet, or a result of each client and none is named.
    """
    if not result.unfinished:
        yield result
        return
    work = Path(tempfile.mkdtemp(prefix="fedlit-"))
    try:
        yield replace(result, folder=_export(result, work / "result"))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _export(result: Result, folder: Path) -> Path:
    import torch  # noqa: PLC0415  a finished run needs none of these
    from lightning.fabric import Fabric  # noqa: PLC0415

    from fedlit.assembly import assemble  # noqa: PLC0415
    from fedlit.inputs import gather_inputs  # noqa: PLC0415
    from fedlit.planning import make_plan  # noqa: PLC0415

    run = result.run.absolute()
    settings = replace(result.config.run, dir=str(run.parent), name=run.name)  # the folder may have moved
    inputs = gather_inputs(replace(result.config, run=settings))
    compute = result.config.compute
    torch.set_num_threads(compute.threads)
    accelerator = "cpu" if compute.accelerator == "cpu" or not torch.cuda.is_available() else "cuda"
    precision: Any = compute.precision
    fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)
    federation, _ = assemble(make_plan(inputs), fabric)
    population = range(len(federation.rows)) if federation.host.has_private else ()
    if population and result.client_id is None:
        raise UserError(f"{result.run} has a model for each client; choose one with --client=0 to {population[-1]}")
    if result.client_id is not None and result.client_id not in population:
        has = f"0 to {population[-1]}" if population else "one model for all clients"
        raise UserError(
            f"{result.run} has no client {result.client_id} of its own: it has {has}; give another --client"
        )
    if federation.export_newest(folder, result.client_id) is None:
        raise UserError(f"{result.run} has no checkpoint yet; wait for its first round")
    return folder

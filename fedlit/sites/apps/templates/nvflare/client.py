"""A site in NVFlare's client API: fedlit's local trainer on this site's own rows.

What a site keeps between its rounds (private tensors such as FedSA-LoRA's B, moments, what was folded) is in files of
its own, which never leave it.
"""

import argparse
import logging
from pathlib import Path

import nvflare.client as flare
from carried import OWN, carried, config, message_in

from fedlit.errors import UserError
from fedlit.sites.kept_files import KeptFiles
from fedlit.sites.messages import Message
from fedlit.sites.site import Site, open_site

OWN_KEYS = {
    "data_path": "data.path",
    "test_path": "data.test_path",
    "validation_path": "data.validation_path",
    "model_path": "model.path",
    "accelerator": "compute.accelerator",
}
"""Options of a site in sites.yaml, and what of the configuration they set for this site alone."""


def main() -> None:
    """Answer the server's messages until the job ends."""
    options = _parser().parse_args()
    own = {key: getattr(options, name) for name, key in OWN_KEYS.items() if getattr(options, name) is not None}
    if not options.simulated and "data.path" not in own:
        raise UserError(f"client {options.client} names no rows; give it data-path in sites.yaml")
    flare.init()
    site = open_site(config(), options.client, own=None if options.simulated else own)
    kept = KeptFiles.of(options.state, options.client, site.told)
    while flare.is_running():
        received = flare.receive()
        if received is None:  # the job has ended
            return
        answer = answered(site, kept, message_in(received.params[OWN]), options.result or _result_folder(options, site))
        flare.send(flare.FLModel(params={OWN: carried(answer)}))


def answered(site: Site, kept: KeptFiles, message: Message, result: Path) -> Message:
    """Return this site's answer, having kept what it keeps; `result` is where its own model goes at the end."""
    if message.kind == "join":
        return site.join()
    if message.kind == "export":
        folder = site.export(message, kept.before(message), result)
        logging.getLogger(__name__).info("the model of client %s is in %s", site.client_id, folder)
        return Message(kind="export")
    if message.kind not in ("train", "evaluate"):
        return message  # this exchange is not for this site
    act = site.train if message.kind == "train" else site.evaluate
    answer, state = act(message, kept.before(message))
    kept.keep(message, state)
    return answer


def _result_folder(options: argparse.Namespace, site: Site) -> Path:
    """Return where the model goes of a site that does not say it; in a simulation beside the centre's files."""
    run, name = site.workplace.config.run, f"client-{site.client_id:05d}"
    if options.simulated:
        return Path(run.dir) / str(run.name) / "adapter" / name
    return Path.home() / "fedlit-results" / str(run.name) / name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--client", type=int, required=True)
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--state", type=Path, default=Path("fedlit-state"))
    parser.add_argument("--result", type=Path)
    for name in OWN_KEYS:
        parser.add_argument(f"--{name.replace('_', '-')}")
    return parser


if __name__ == "__main__":
    main()

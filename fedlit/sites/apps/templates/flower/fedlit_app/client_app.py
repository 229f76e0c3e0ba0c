"""A site as a ClientApp: fedlit's local trainer on this node's own rows.

What a site keeps between its rounds (private tensors such as FedSA-LoRA's B, moments, what was folded) is in the
context's state, which never leaves the node.
"""

from functools import cache
from logging import INFO
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.common.logger import log

from fedlit.errors import UserError
from fedlit.sites.messages import Message as Answer
from fedlit.sites.site import Site, open_site
from fedlit_app.carried import carried, config, message_in

STATE = "fedlit"
OWN = {
    "data-path": "data.path",
    "test-path": "data.test_path",
    "validation-path": "data.validation_path",
    "model-path": "model.path",
    "accelerator": "compute.accelerator",
}
"""Keys of a node's --node-config, and what of the configuration they set for this node alone."""

app = ClientApp()


@app.query()
def join(message: Message, context: Context) -> Message:
    """Say who this site is and how many rows it has."""
    return Message(carried(site_of(context).join(state_of(context))), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one round."""
    answer, state = site_of(context).train(message_in(message.content), state_of(context))
    keep(context, state)
    return Message(carried(answer), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Score a model on what this site has."""
    answer, state = site_of(context).evaluate(message_in(message.content), state_of(context))
    keep(context, state)
    return Message(carried(answer), reply_to=message)


@app.evaluate("export")
def export(message: Message, context: Context) -> Message:
    """Write this site's own model, where the method lets each site have one."""
    site, received = site_of(context), message_in(message.content)
    folder = result_folder(context, site.client_id)
    site.export(received, state_of(context), folder)
    log(INFO, "the model of client %s is in %s", site.client_id, folder)
    return Message(carried(Answer(kind="export")), reply_to=message)


def result_folder(context: Context, client_id: int) -> Path:
    """Return where this site's model goes: `result-path` of the node, or in a simulation beside the centre's files."""
    if (path := context.node_config.get("result-path")) is not None:
        return Path(str(path)).expanduser()
    run = config().run
    name = f"client-{client_id:05d}"
    if bool(context.run_config["simulated"]):
        return Path(run.dir) / str(run.name) / "adapter" / name
    return Path.home() / "fedlit-results" / str(run.name) / name


def site_of(context: Context) -> Site:
    """Return the site of this node; the backbone is loaded once in a process."""
    own = {OWN[key]: str(value) for key, value in context.node_config.items() if key in OWN}
    simulated = bool(context.run_config["simulated"])
    client_id = context.node_config.get("client-id", context.node_config.get("partition-id"))
    if client_id is None:
        raise UserError("this node has no number; start it with --node-config 'client-id=0 data-path=\"rows.jsonl\"'")
    if not simulated and "data.path" not in own:
        raise UserError(f"node {client_id} names no rows; give it --node-config 'client-id={client_id} data-path=...'")
    return _site(int(client_id), None if simulated else tuple(sorted(own.items())))


@cache
def _site(client_id: int, own: tuple[tuple[str, str], ...] | None) -> Site:
    if own is None:  # all clients of a simulation share the process's one model
        return _simulation().of_client(client_id)
    return open_site(config(), client_id, own=dict(own))


@cache
def _simulation() -> Site:
    return open_site(config(), 0)


def state_of(context: Context) -> bytes | None:
    """Return what this site has kept."""
    if STATE not in context.state:
        return None
    kept = context.state[STATE]["state"]
    assert isinstance(kept, bytes)
    return kept


def keep(context: Context, state: bytes) -> None:
    """Keep it for the next round."""
    context.state[STATE] = ConfigRecord({"state": state})

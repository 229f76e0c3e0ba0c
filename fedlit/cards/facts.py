"""What a result's card says, as values: taken from a run's configuration, its record and its partition.

Nothing of a machine is in it: no path, no time, no number of processes. Two runs of one configuration have one text.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlit.cards.files import Facts
from fedlit.config import RunConfig
from fedlit.config.help import first_comment
from fedlit.config.schema import ModelConfig
from fedlit.data.prompts import prompt_template, required_columns, template_columns
from fedlit.models.places import MEMORY, PACKAGED
from fedlit.recipes import options_taken, picked_names
from fedlit.scores import SCORES, choice_keys, headings, number
from fedlit.shipped import shipped
from fedlit.tasks.registry import task_spec

LOCAL = "a local path"
MOST_NAMES = 50
_VERSIONS = ("fedlit", "torch", "transformers", "peft")


def result_facts(
    config: RunConfig,
    *,
    round_number: int,
    records: Sequence[Mapping[str, Any]] = (),
    partition: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    client_id: int | None = None,
) -> Facts:
    """Return the facts of a result.

    Args:
        config: of the run.
        round_number: whose model it is.
        records: of the run, those up to this round at least.
        partition: what partition.json holds; None where it is not known.
        environment: what environment.json holds.
        client_id: whose model it is, where every client has its own.
    """
    record: Mapping[str, Any] = next((each for each in reversed(records) if each["round"] == round_number), {})
    until = [record for record in records if 0 < record["round"] <= round_number]
    clients = (partition or {}).get("clients", [])
    packages = (environment or {}).get("packages", {})
    facts = {
        "name": f"{Path(config.model.name).name}-{Path(config.data.name).name}-{config.method.name}",
        "task": config.data.task,
        "base": base_facts(config.model),
        "method": _method(config),
        "client": None if client_id is None else {"id": client_id, "name": _client_name(clients, client_id)},
        "round": round_number,
        "chosen": _chosen(config, round_number, records),
        "data": _data(config, partition or {}),
        "partition": _partition(config, partition or {}),
        "protocol": _protocol(config),
        "evaluation": _evaluation(config),
        "privacy": {
            name: record[f"privacy/{name}"]
            for name in ("unit", "epsilon", "delta", "noise_multiplier")
            if f"privacy/{name}" in record
        },
        "scores": _scores(record, client_id),
        "traffic": {
            name: sum(int(record.get(f"communication/{name}_bytes", 0)) for record in until)
            for name in ("uplink", "downlink")
        },
        "versions": {
            **{name: packages[name] for name in _VERSIONS if packages.get(name)},
            **({"python": environment["python"]} if environment and "python" in environment else {}),
        },
    }
    return {**_without_paths(facts), "prompt": prompt_facts(config)}


def base_facts(model: ModelConfig) -> Facts:
    """Return what a card says of a backbone; one that lies on a disk is called by its name alone."""
    kind = "hub"
    if model.path in PACKAGED:
        kind = "package"
    elif model.path.startswith(f"{MEMORY}:"):
        kind = "memory"
    elif model.path.startswith((".", "/", "~")) or Path(model.path).is_dir():
        kind = "folder"
    return {
        "name": Path(model.name).name,
        "hub_id": model.path if kind == "hub" else None,
        "kind": kind,
        "weights": model.weights,
        "dtype": model.dtype,
        "quantization": model.quantization,
        "max_length_tokens": model.max_length_tokens,
    }


def prompt_facts(config: RunConfig) -> Facts:
    """Return how a row becomes what the model reads."""
    data, spec = config.data, task_spec(config.data.task)
    if data.task != "causal_lm":
        columns = {"text": data.text or "text"} if spec.reads_text else {"image": data.image}
        return {"form": "columns", **columns, "max_length_tokens": config.model.max_length_tokens}
    stop = {"stop": list(config.eval.stop)}
    if data.messages is not None:
        return {"form": "chat", "messages": data.messages, **stop}
    if data.text is not None:
        return {"form": "text", "text": data.text, **stop}
    template = prompt_template(data)
    test = prompt_template(data, test=True)
    return {
        "form": "template",
        "template": template,
        **({"test_template": test} if test != template else {}),
        "columns": template_columns(test),
        "required": required_columns(data),
        "response": data.response,
        "rendering": "template.format(**row); a blank column leaves no gap: the line breaks on its two sides become "
        "one blank line at most",
        **stop,
    }


def _method(config: RunConfig) -> Facts:
    method = config.method
    options = {name: method.options[name] for name in options_taken(method) if method.options.get(name) is not None}
    parts: dict[str, Any] = {"transforms": []}
    for kind, name in picked_names(method):
        if kind == "transform":
            parts["transforms"].append(name)
        else:
            parts[kind] = name
    return {"name": method.name, **parts, "options": options, "reference": _reference(method.name)}


def _reference(method: str) -> str:
    """Return the first sentence of a method's file, which names its paper; '' of a method from outside."""
    path = shipped("configs") / "method" / f"{Path(method).name}.yaml"
    return first_comment(path.read_text(encoding="utf-8")) if path.is_file() else ""


def _chosen(config: RunConfig, round_number: int, records: Sequence[Mapping[str, Any]]) -> Facts:
    """Return why it is this round's model: the last, or the best by a score on a set."""
    by = {"of_rounds": config.num_rounds}
    if config.run.result != "best":
        return {"result": "last", **by}
    recorded = {key for record in records for key in record}
    key = next((key for key in choice_keys(config.data, config.eval) if key in recorded), None)
    if key is None:
        return {"result": "best", **by}
    place, _, name = key.partition("/")
    return {"result": "best", "score": name, "set": "validation" if place == "validation" else "test", **by}


def _data(config: RunConfig, partition: Mapping[str, Any]) -> Facts:
    clients = partition.get("clients", [])
    hub = config.data.hub_id if config.data.path is None and config.data.source == "hub" else None
    return {
        "name": config.data.name,
        "hub_id": hub,
        "num_clients": config.num_clients,
        "num_rows": partition.get("num_rows"),
        "num_train": [client["num_train"] for client in clients if "num_train" in client][:MOST_NAMES],
        "num_test": [client["num_test"] for client in clients if "num_test" in client][:MOST_NAMES],
    }


def _client_name(clients: Sequence[Mapping[str, Any]], client_id: int) -> str:
    return next((str(each.get("name", "")) for each in clients if each.get("client_id") == client_id), "")


def _partition(config: RunConfig, partition: Mapping[str, Any]) -> Facts:
    chosen = config.partition
    own: dict[str, Facts] = {
        "dirichlet": {"alpha": chosen.alpha},
        "quantity": {"alpha": chosen.alpha},
        "topics": {"alpha": chosen.alpha, "num_topics": chosen.num_topics},
        "pathological": {"classes_per_client": chosen.classes_per_client},
        "natural": {"column": chosen.column or config.data.label},
    }
    skew = partition.get("heterogeneity", {})
    return {
        "name": chosen.name,
        "label": partition.get("label", config.data.label),
        **own.get(chosen.name, {}),
        "heterogeneity": {name: skew.get(name) for name in ("jensen_shannon", "size_variation")},
    }


def _protocol(config: RunConfig) -> Facts:
    local = config.local
    length = {"steps": local.steps} if local.epochs is None else {"epochs": local.epochs}
    server = {} if config.server.optimizer == "none" else {"server_optimizer": config.server.optimizer}
    return {
        "rounds": config.num_rounds,
        "clients": config.num_clients,
        "clients_in_a_round": config.cohort_size or config.num_clients,
        **{f"local_{name}": value for name, value in length.items()},
        "batch_size": local.batch_size,
        "accumulate": local.accumulate,
        "learning_rate": local.lr,
        "schedule": local.schedule,
        **server,
        "loss_on": local.loss_on,
        "max_length_tokens": config.model.max_length_tokens,
        "precision": config.compute.precision,
        "seed": config.seed,
    }


def _evaluation(config: RunConfig) -> Facts:
    evaluation, spec = config.eval, task_spec(config.data.task)
    facts: Facts = {"on": evaluation.on, "max_examples": evaluation.max_examples}
    if spec.protocols:
        facts["protocol"] = evaluation.protocol
    if spec.generates:
        names = ("max_new_tokens", "num_beams", "length_penalty", "no_repeat_ngram_size")
        facts |= {name: getattr(evaluation, name) for name in names}
    return facts


def _scores(record: Mapping[str, Any], client_id: int | None) -> list[Facts]:
    """Return the scores of a record: those of all together and, of a client's own model, its own first."""
    keys = dict.fromkeys(key for key in record if number(record[key]) is not None)
    found: dict[str, str] = {}
    for name in SCORES if client_id is not None else ():
        key = f"client/{client_id}/own/{name}"
        if key in keys:
            found[key] = f"this client's {SCORES[name].heading}"
    for key in keys:
        if key.startswith("validation/") and _known(key):
            found[key] = f"validation {SCORES[key.partition('/')[2]].heading}"
    for key, heading in headings(keys).items():
        found[key] = f"{heading} (mean of the clients)" if heading.startswith("own ") else heading
    return [{"key": key, "heading": heading, "value": float(record[key])} for key, heading in found.items()]


def _known(key: str) -> bool:
    return key.partition("/")[2] in SCORES


def _without_paths(value: Any) -> Any:
    """Return a value in which no text is an absolute path: what is on this machine is nobody's business."""
    if isinstance(value, Mapping):
        return {key: _without_paths(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(entry) for entry in value]
    if isinstance(value, str) and (value.startswith(("/", "~")) or str(Path.home()) in value):
        return LOCAL
    return value

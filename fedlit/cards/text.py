"""The model card of a result, README.md in the hub's format: front matter, and what a reader has to know.

Made from the facts alone, without a network and without a clock.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from fedlit.cards.files import Facts
from fedlit.cards.loading import HERE, loading_code
from fedlit.scores import SCORES
from fedlit.tasks.registry import task_spec
from fedlit.units import readable_bytes

PIPELINES = {
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForImageClassification": "image-classification",
}
_HUB_METRICS = {"rouge_l": "rouge", "bleu_4": "bleu", "bleu": "bleu", "exact_match": "exact_match"}
_HUB_METRICS |= {"f1_macro": "f1", "f1_weighted": "f1", "f1_micro": "f1", "f1": "f1", "accuracy": "accuracy"}


def card_text(facts: Facts, *, ranks: tuple[int, int] | None, name: str | None = None, is_pair: bool = False) -> str:
    """Return the whole card.

    Args:
        facts: of the result.
        ranks: the smallest and the largest rank of an adapter's layers; None of a whole model.
        name: of its repository on the hub, once it has one.
        is_pair: two adapters and what weighs them.
    """
    sections = {
        "How to load it": _loading_pair(facts) if is_pair else _loading(facts, is_adapter=ranks is not None, name=name),
        "Prompt": _prompt(facts["prompt"]),
        "Scores": _scores(facts),
        "Method": _method(facts, ranks),
        "Data": _data(facts["data"], facts["prompt"]),
        "Partition": _partition(facts["partition"]),
        "Protocol": _table("", "", facts["protocol"]),
        "Privacy": _privacy(facts["privacy"]),
        "Communication": _traffic(facts),
        "Versions": _table("package", "version", facts["versions"]),
        "What is not here": _missing(facts, is_adapter=is_pair or ranks is not None),
    }
    told = "\n\n".join(f"## {heading}\n\n{text}" for heading, text in sections.items() if text)
    front = _front_matter(facts, is_adapter=is_pair or ranks is not None)
    what = "A whole model that began as" if ranks is None else "A PEFT adapter over"
    lead = _lead(facts, "Two LoRA adapters, and what weighs them by the input, over" if is_pair else what)
    return f"---\n{front}\n---\n\n# {_cell(facts['name'])}\n\n{lead}\n\n{told}\n"


def _front_matter(facts: Facts, *, is_adapter: bool) -> str:
    base, data = facts["base"], facts["data"]
    pipeline = PIPELINES.get(task_spec(facts["task"]).auto_class)
    found = (_eval_result(facts, score, pipeline or "other") for score in facts["scores"])
    results = [result for result in found if result is not None]
    card = ModelCardData(
        base_model=base["hub_id"],
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag=pipeline,
        tags=["federated-learning", "fedlit", facts["method"]["name"], *(["lora"] if is_adapter else [])],
        datasets=[data["hub_id"]] if data["hub_id"] else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=facts["name"] if results else None,
        eval_results=results or None,
    )
    return str(card.to_yaml(line_break="\n")).rstrip("\n")


def _eval_result(facts: Facts, score: Mapping[str, Any], pipeline: str) -> EvalResult | None:
    """Return a score of the global test set as the hub has it; None of what the hub has no name for."""
    place, _, name = score["key"].partition("/")
    if place != "global" or name not in _HUB_METRICS:
        return None
    data = facts["data"]
    return EvalResult(
        task_type=pipeline,
        dataset_type=data["hub_id"] or data["name"],
        dataset_name=data["name"],
        metric_type=_HUB_METRICS[name],
        metric_name=score["heading"],
        metric_value=score["value"],
    )


def _lead(facts: Facts, what: str) -> str:
    base, client, chosen = facts["base"], facts["client"], facts["chosen"]
    of = f"`{base['hub_id']}`" if base["hub_id"] else f"{_cell(base['name'])} (a local model)"
    whose = ""
    if client is not None:
        name = f" ({_cell(client['name'])})" if client["name"] else ""
        whose = f" It is the model of client {client['id']}{name} alone."
    when = f"as of round {facts['round']} of {chosen['of_rounds']} ({_why(chosen)})"
    return (
        f"{what} {of}, trained by federated fine-tuning with the method `{facts['method']['name']}` on "
        f"{_cell(facts['data']['name'])}, {when}.{whose}"
    )


def _why(chosen: Mapping[str, Any]) -> str:
    if chosen["result"] == "last":
        return "the last that was trained"
    if "score" not in chosen:
        return "the best round"
    heading = SCORES[chosen["score"]].heading if chosen["score"] in SCORES else chosen["score"]
    flatters = ", which flatters its scores there" if chosen["set"] == "test" else ""
    return f"the best round by {heading} on the {chosen['set']} set{flatters}"


def _loading(facts: Facts, *, is_adapter: bool, name: str | None) -> str:
    code = loading_code(facts, is_adapter=is_adapter, name=HERE if name is None else json.dumps(name))
    if code is None:
        return (
            "Its base model exists in the run alone, which has drawn its weights or was given them from Python: "
            "`fedlit merge` of the run's folder writes a model that loads by itself."
            if is_adapter
            else ""
        )
    needs = "`pip install torch transformers peft`" if is_adapter else "`pip install torch transformers`"
    told = f"With {needs}:\n\n{_fenced(code, 'python')}"
    if is_adapter and facts["base"]["kind"] != "hub":
        told += (
            "\n\nadapter_config.json names the place of the base on the machine of the run. Elsewhere load the base "
            "from where you have it, and put `peft.PeftModel.from_pretrained(base, name)` around it."
        )
    if facts["base"]["quantization"]:
        bits = facts["base"]["quantization"]
        told += f"\n\nIt was trained over a base in 4 bits ({bits}), which is loaded here as it is stored."
    return told


def _loading_pair(facts: Facts) -> str:
    """Return how the base and what stands beside it come together; the base is the reader's to load."""
    auto_class = task_spec(facts["task"]).auto_class
    code = (
        f"from pathlib import Path\n\nfrom fedlit.adapters.pair_files import load_pair\n"
        f"from transformers import {auto_class}\n\n"
        f'base = {auto_class}.from_pretrained("...")  # the base model\n'
        'model = load_pair(base, Path("."))  # the folder of this file'
    )
    return (
        f"With `pip install fedlit`:\n\n{_fenced(code, 'python')}\n\nThe folders `shared` and `private` are PEFT "
        "adapters, and each loads alone with peft; no weight is equal to both, since what weighs them depends on "
        "the input."
    )


def _prompt(prompt: Facts) -> str:
    if prompt["form"] == "chat":
        return (
            "Conversations by the chat template in the tokenizer's files, the one that the model was trained with; the "
            "loss was on what the assistant says." + _stops(prompt)
        )
    if prompt["form"] == "text":
        return "Plain text that is gone on with; there is no template." + _stops(prompt)
    if prompt["form"] == "columns":
        columns: Any = prompt.get("text", prompt.get("image"))
        names = [columns] if isinstance(columns, str) else list(columns)
        return f"No template: the model reads {' and '.join(f'`{_cell(name)}`' for name in names)} of a row as it is."
    told = "A row becomes a prompt by this Python format string, and the answer follows it directly:"
    told = f"{told}\n\n{_fenced(prompt['template'])}"
    if "test_template" in prompt:
        told += f"\n\nAt evaluation:\n\n{_fenced(prompt['test_template'])}"
    if len(prompt["columns"]) > 1:
        told += "\n\nA blank column leaves no gap: the line breaks on its two sides become one blank line at most."
    return told + _stops(prompt)


def _stops(prompt: Facts) -> str:
    stop = json.dumps(prompt["stop"], ensure_ascii=False)
    return f"\n\nAn answer ends before the first of {stop}." if prompt["stop"] else ""


def _scores(facts: Facts) -> str:
    if not facts["scores"]:
        return ""
    evaluation = facts["evaluation"]
    how = [f"of round {facts['round']}"]
    if "protocol" in evaluation:
        how.append(f"protocol `{evaluation['protocol']}`")
    if evaluation["max_examples"] is not None:
        how.append(f"on at most {evaluation['max_examples']} examples of a set")
    if evaluation.get("no_repeat_ngram_size"):
        how.append(
            f"no {evaluation['no_repeat_ngram_size']}-gram generated twice (the prompt's do not count; "
            "generation_config.json leaves it out, since transformers counts them)"
        )
    values = {score["heading"]: f"{score['value']:.4f}" for score in facts["scores"]}
    return f"The scores {', '.join(how)}; shares are from 0 to 1.\n\n{_table('score', 'value', values)}"


def _method(facts: Facts, ranks: tuple[int, int] | None) -> str:
    method = facts["method"]
    rows = {name: method[name] for name in ("adapter", "optimizer", "rule")}
    if method["transforms"]:
        rows["transforms"] = ", ".join(method["transforms"])
    told = _table("part", "", {**rows, **method["options"]})
    if method["reference"]:
        told = f"{method['reference'].rstrip('.')}.\n\n{told}"
    trained = method["options"].get("lora_rank")
    if ranks is None or not isinstance(trained, int):
        return told
    span = f"rank {ranks[0]}" if ranks[0] == ranks[1] else f"ranks {ranks[0]} to {ranks[1]}"
    if ranks == (trained, trained):
        return f"{told}\n\nThe adapter has {span} in every layer."
    return (
        f"{told}\n\nThe adapter has {span}, and {trained} was trained: what the server folded into the frozen weights "
        "is a part of it, or clients differ in rank. It is one ordinary LoRA over the pretrained base all the same; "
        "who goes on training it trains all of its rank."
    )


def _data(data: Facts, prompt: Facts) -> str:
    rows = {"name": data["name"], "clients": data["num_clients"], "rows": data["num_rows"]}
    rows["training rows of the clients"] = ", ".join(map(str, data["num_train"]))
    rows["test rows of the clients"] = ", ".join(map(str, data["num_test"])) if any(data["num_test"]) else ""
    columns = [*prompt["columns"], prompt["response"]] if prompt["form"] == "template" else []
    return _table("", "", {**rows, "columns": ", ".join(columns)})


def _partition(partition: Facts) -> str:
    skew = partition["heterogeneity"]
    rows = {name: value for name, value in partition.items() if name != "heterogeneity"}
    named = {
        "label skew (Jensen-Shannon divergence of the clients' labels from all, 0 to 1)": skew["jensen_shannon"],
        "size skew (standard deviation of the clients' rows over their mean)": skew["size_variation"],
    }
    return _table("", "", rows | {name: f"{value:.4f}" for name, value in named.items() if value is not None})


def _privacy(claim: Facts) -> str:
    """Return what is claimed of the model; nothing where nothing is."""
    if not claim:
        return ""
    if "epsilon" not in claim:
        return f"Trained with bounded parts of each {claim['unit']} and without noise: no privacy is claimed."
    return (
        f"For one {claim['unit']} of the simulated federation: epsilon {claim['epsilon']:.4g} at delta "
        f"{claim['delta']:g} (noise multiplier {claim['noise_multiplier']:.4g}). It is of the model alone, and the run "
        "was a simulation: its noise can be computed from the seed."
    )


def _traffic(facts: Facts) -> str:
    traffic = facts["traffic"]
    if not any(traffic.values()):
        return ""
    sent, received = (f"{readable_bytes(traffic[way])} ({traffic[way]} bytes)" for way in ("uplink", "downlink"))
    return f"Until round {facts['round']} all clients together sent {sent} and received {received}."


def _missing(facts: Facts, *, is_adapter: bool) -> str:
    told = ["The rows it was trained on, the clients' own states and the checkpoints stay in the run's folder."]
    if is_adapter:
        told.append("The weights of the base model are its own, and so is their license.")
    elif facts["base"]["hub_id"]:
        told.append(f"The license of `{facts['base']['hub_id']}` holds for the weights that come from it.")
    told.append("Nobody has looked at what it says to prompts unlike those of its data.")
    return " ".join(told)


def _table(left: str, right: str, rows: Mapping[str, Any]) -> str:
    """Return a table of what is known."""
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items() if value not in (None, "", [])]
    return "\n".join((f"| {left} | {right} |", "|---|---|", *lines)) if lines else ""


def _cell(value: Any) -> str:
    """Return a value as one cell of a table, or a word of a sentence, which nothing in it ends."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return re.sub(r"([|`<>\[\]\\])", r"\\\1", text) if isinstance(value, str) else text


def _fenced(text: str, language: str = "text") -> str:
    """Return a text between fences that are longer than any in it."""
    ticks = "`" * max(3, 3, *(len(run) + 1 for run in re.findall(r"`+", text)))
    return f"{ticks}{language}\n{text}{'' if text.endswith(chr(10)) else chr(10)}{ticks}"

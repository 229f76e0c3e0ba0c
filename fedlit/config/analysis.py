"""What `analysis` names: which numbers a run measures inside its rounds, and which it must not show."""

from collections.abc import Iterator, Mapping
from typing import Any

from fedlit.config.keys import SCHEMA, nearest, show
from fedlit.config.schema import RunConfig

Problem = tuple[str, str]

ANALYSES = SCHEMA["analysis"].valid
"""All names, in the order of the record's documentation."""

OF_CLIENTS = ("deviation", "rank", "subspaces", "dense")
"""Those that look at what single clients sent."""


def analysis_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield names that do not exist, and forgetting without a general set."""
    for name in values["analysis"]:
        if name not in ANALYSES:
            yield "analysis", f"names {name}{nearest(name, ANALYSES)} Valid analyses: {', '.join(ANALYSES)}"
    if "forgetting" in values["analysis"]:
        if values["eval.general"] is None:
            yield (
                "eval.general",
                "is not given, and analysis has forgetting; give a data set, as eval.general=dolly",
            )
        if values["data.task"] != "causal_lm":
            yield "analysis", f"names forgetting, which is of texts, and data.task={values['data.task']}; leave it out"


def hides_clients(config: RunConfig) -> bool:
    """Tell whether what single clients send is nobody's to see."""
    return config.privacy.unit == "client" or config.privacy.secure_aggregation


def measured(config: RunConfig) -> frozenset[str]:
    """Return the names of what a run measures: what it asks for, without what it hides."""
    return frozenset(config.analysis) - (frozenset(OF_CLIENTS) if hides_clients(config) else frozenset())


def keys_of_a_layer(config: RunConfig) -> int:
    """Return how many numbers of a single layer a round's record has at most, of a method with factors."""
    return sum(number for name, number in (("deviation", 1), ("rank", 3), ("subspaces", 4)) if name in measured(config))


def measures_gradients(config: RunConfig) -> bool:
    """Tell whether the gradients of the clients' local steps are measured."""
    return "norms" in config.analysis and not hides_clients(config)


def analysis_warnings(config: RunConfig) -> list[str]:
    """Return one line on what is asked for and left out."""
    hidden = [name for name in config.analysis if name in OF_CLIENTS]
    if not (hidden and hides_clients(config)):
        return []
    why = "privacy.unit=client" if config.privacy.unit == "client" else "privacy.secure_aggregation=true"
    rest = [name for name in config.analysis if name not in hidden]
    return [
        f"analysis={show(config.analysis)}: {', '.join(hidden)} look at single clients, whom {why} hides, and are left "
        f"out; analysis={show(rest)} is the same without this line"
    ]

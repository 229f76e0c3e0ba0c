"""Options of privacy that would void the claim, or that nothing looks at."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from fedlit.config.keys import show
from fedlit.config.record import flat_values
from fedlit.config.schema import RunConfig

Problem = tuple[str, str]

OF_A_CLAIM = ("epsilon", "noise_multiplier", "clip_norm", "accountant")
OF_CLIENTS = ("clip_quantile", "noise_cohort_size", "population", "canaries")
OF_MASKS = ("neighbours", "threshold", "unmask_dropout")


def privacy_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what would void a claim of privacy, with the reason."""
    unit = values["privacy.unit"]
    if unit == "client":
        yield from _client_problems(values)
    if unit == "example" and values["local.clients_per_batch"] > 1:
        yield (
            "local.clients_per_batch",
            "trains several clients in one pass, and privacy.unit=example cuts each row's gradient there; "
            "give local.clients_per_batch=1",
        )
    if unit == "example" and values["cohort.availability"] in ("deadline", "buffered"):
        yield (
            "cohort.availability",
            "lets the number of tokens in a client's rows decide who comes, which no epsilon is of; give always, "
            "bernoulli or trace",
        )
    if unit in ("client", "example"):
        yield from _claim_problems(values)
        yield from _missing_package("dp_accounting", "privacy.unit", "dp-accounting")
    if values["privacy.secure_aggregation"]:
        yield from _missing_package("cryptography", "privacy.secure_aggregation", "cryptography")


def _claim_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what a claim of either unit lacks."""
    unit = values["privacy.unit"]
    if values["privacy.clip_norm"] is None:
        what = "client" if unit == "client" else "example"
        yield (
            "privacy.clip_norm",
            f"is not given, and without it one {what} could move the result without a limit; give "
            "privacy.clip_norm=<the largest norm>",
        )
    if values["privacy.epsilon"] is None and values["privacy.noise_multiplier"] is None:
        yield (
            "privacy.epsilon",
            f"is not given beside privacy.unit={unit}; give it, or privacy.noise_multiplier=<number>",
        )
    if values["privacy.noise_multiplier"] == 0 and values["privacy.epsilon"] is not None:
        yield "privacy.noise_multiplier", "is no noise, whose epsilon is infinite; leave privacy.epsilon out"


def _client_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what would let one client count for more than the accountant knows."""
    sampling, num_clients = values["cohort.sampling"], values["num_clients"] + values["privacy.canaries"]
    cohort_size = values["cohort_size"] or num_clients
    if sampling not in ("fixed", "poisson"):
        yield "cohort.sampling", "is of a plugin, and the accountant knows fixed and poisson; give one of them"
    if values["cohort.availability"] != "always":
        yield (
            "cohort.availability",
            "may let one client decide whether others come, or how many, which no epsilon is of; give "
            "cohort.availability=always",
        )
    if values["cohort.over_selection"] > 1:
        yield (
            "cohort.over_selection",
            "invites more clients than the accountant counts; give 1, or a larger cohort_size",
        )
    deployed, population = (values["privacy.noise_cohort_size"] or cohort_size), values["privacy.population"]
    if deployed > (population or num_clients):
        key = "privacy.noise_cohort_size" if values["privacy.noise_cohort_size"] else "privacy.population"
        yield key, f"makes a cohort of {deployed} in a population of {population or num_clients}; give more clients"
    if sampling == "fixed" and values["privacy.accountant"] == "pld" and deployed < (population or num_clients):
        yield (
            "privacy.accountant",
            "is for Poisson sampling, and cohort.sampling=fixed draws without replacement; give "
            "cohort.sampling=poisson, or privacy.accountant=rdp",
        )
    if values["privacy.canaries"] and sampling == "fixed" and values["cohort_size"] is not None:
        yield (
            "privacy.canaries",
            "needs canaries that are drawn by themselves; give cohort.sampling=poisson, or cohort_size=null for all "
            "clients in every round",
        )
    if values["privacy.clip_quantile"] == 0:
        yield "privacy.clip_quantile", "lets the clip norm fall to 0; give a number above 0, such as 0.5"


def _missing_package(module: str, key: str, package: str) -> Iterator[Problem]:
    if find_spec(module) is None:
        yield key, f"needs the package {package}, which is not installed; pip install 'fedlit[privacy]'"


def idle_privacy_keys(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield the keys of privacy that a run does not look at, and why."""
    privacy = config.privacy
    if privacy.unit == "none":
        yield from ((f"privacy.{name}", "privacy.unit=none") for name in (*OF_A_CLAIM, "delta"))
    if privacy.unit != "client":
        yield from ((f"privacy.{name}", f"privacy.unit={privacy.unit}") for name in OF_CLIENTS)
    if privacy.clip_quantile is None or privacy.unit != "client":
        why = "privacy.clip_quantile=null" if privacy.unit == "client" else f"privacy.unit={privacy.unit}"
        yield from ((f"privacy.{name}", why) for name in ("clip_lr", "clip_count_noise"))
    if not privacy.secure_aggregation:
        yield from ((f"privacy.{name}", "privacy.secure_aggregation=false") for name in OF_MASKS)


def privacy_warnings(config: RunConfig) -> list[str]:
    """Return what a claim does not cover in this run, a line each."""
    privacy, values = config.privacy, flat_values(config)
    if privacy.unit == "none":
        return []
    lines = []
    population = privacy.population or config.num_clients
    if privacy.unit == "client" and privacy.delta >= 1 / population:
        lines.append(
            f"privacy.delta={show(privacy.delta)} is not below 1 / {population:,} clients: it allows to show one of "
            "them whole; give a smaller one"
        )
    if privacy.unit == "example" and (config.logging.samples_kept or config.logging.samples_shown):
        lines.append(
            f"logging.samples_kept={show(values['logging.samples_kept'])} writes texts of test rows to the run's "
            "folder; rows of clients are not hidden there"
        )
    if config.run.result == "best" or config.eval.patience is not None:
        lines.append(
            "the choice of a round by its scores is not counted in epsilon; it is free where the rows that choose are "
            "nobody's"
        )
    if privacy.unit == "client" and config.local.clients_per_batch > 1:
        lines.append(
            f"local.clients_per_batch={config.local.clients_per_batch}: the last bits of a change may depend on "
            "who shares its pass, which no epsilon is of; clients on machines of their own have no such pass"
        )
    if privacy.unit == "client" and config.plugins:
        lines.append(
            f"plugins={show(values['plugins'])}: parts from outside can see who came in a round; the claim holds if "
            "they use the clients' sums alone"
        )
    if privacy.canaries:
        lines.append(f"privacy.canaries={privacy.canaries} take part: the result is good for `fedlit audit` alone")
    return lines

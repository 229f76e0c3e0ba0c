"""What fits a federation of real sites: what it cannot have, and what its server sees."""

from fedlit.config import RunConfig
from fedlit.errors import UserError
from fedlit.method import Method


def require_fit(config: RunConfig, method: Method) -> None:
    """Raise a UserError for a configuration that real sites cannot have."""
    if (reason := why_not(config, method)) is not None:
        raise UserError(reason)


def why_not(config: RunConfig, method: Method) -> str | None:
    """Return why real sites cannot have this configuration, in one line; None where they can."""
    privacy, name = config.privacy, method.name
    reasons = {
        f"method={name} pools all rows in one place, and sites keep theirs; choose another method": method.pooled,
        f"method={name} sends nothing, so there is nothing to federate; choose another method": not method.communicates,
        f"privacy.unit={privacy.unit} is a claim about one program that draws all noise and accounts for it, which an "
        "app of another framework is not; give privacy.unit=none, and use what that framework has": (
            privacy.unit != "none"
        ),
        "privacy.secure_aggregation=true makes the keys of all clients in one process; give false, and use the "
        "framework's own": privacy.secure_aggregation,
        "privacy.canaries are clients that nobody has; give privacy.canaries=0": privacy.canaries > 0,
        f"method={name} makes its first tensors from rows of all clients, which no place has; choose another "
        "method.init": method.adapter.looks_at_rows,
        f"cohort.availability={config.cohort.availability} simulates who comes, and real sites come or do not; give "
        "cohort.availability=always": config.cohort.availability != "always",
        f"cohort.over_selection={config.cohort.over_selection} simulates who comes first; give 1": (
            config.cohort.over_selection != 1
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def what_the_server_sees(method: Method) -> str:
    """Return in one line what a server learns of a single site's training."""
    rule = type(method.rule).__name__
    common = "The server receives every site's trained tensors, its number of rows, losses and scores, and sums them."
    if method.rule.stacks:
        return f"{common} The rule {rule} needs them one by one: it looks at single sites, so no mask can hide them."
    if method.rule.asks_again:
        return (
            f"{common} The rule {rule} needs sums alone, and asks twice, for which the server keeps them for a round."
        )
    return f"{common} The rule {rule} needs the sum alone."


def what_sites_keep(config: RunConfig, method: Method, num_private: int) -> str:
    """Return in a sentence what stays with a site from round to round; `num_private` numbers are its own tensors."""
    kept = {
        f"tensors of its own, {num_private:,} numbers, which nobody else ever gets": num_private > 0,
        "the moments of its optimizer": config.local.optimizer_state == "keep",
        "its control variate": config.local.scaffold,
        "what was folded into frozen weights so far, which arrives round by round as factors": method.rule.folds,
    }
    told = [text for text, holds in kept.items() if holds]
    return f"A site keeps {'; '.join(told)}." if told else "A site keeps nothing from round to round."

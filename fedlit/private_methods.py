"""Which methods keep what a run claims of its privacy, and why others do not."""

from collections.abc import Mapping

from fedlit.config import RunConfig
from fedlit.errors import UserError
from fedlit.method import Method
from fedlit.round.plan import weights_by_examples
from fedlit.round.rules.products import ProductRule
from fedlit.round.rules.ways import WayRule


def require_private(run: RunConfig, method: Method, names: Mapping[str, str]) -> None:
    """Refuse a method that would void the claim, or that has nothing to hide; `names` are those of its parts.

    Raises:
        UserError: says what of the method, why, and what to give instead.
    """
    privacy = run.privacy
    hides_clients = privacy.unit == "client"
    asked = f"privacy.unit={privacy.unit}" if hides_clients else "privacy.secure_aggregation=true"
    if hides_clients or privacy.secure_aggregation:
        if method.pooled or not method.communicates:
            raise UserError(
                f"{asked} hides what clients send, and with method={method.name} nothing travels; leave it out, or "
                "choose a method that communicates"
            )
        if method.rule.stacks:
            sketches = isinstance(method.rule, ProductRule)
            width = " and method.sketch_width=<number>" if hides_clients and sketches else ""
            sums = f"method.aggregate_by=sums{width}"
            remedy = (
                sums if isinstance(method.rule, WayRule) else "a rule that asks for sums, such as method.rule=fedavg"
            )
            raise UserError(
                f"{asked} shows sums alone, and method.rule={names['rule']} looks at single clients; give {remedy}"
            )
    if hides_clients and method.adapter.sends_own:
        raise UserError(
            f"privacy.unit=client cuts and blurs what a client sends, so that no client could take its own part out of "
            f"the mean as method.rule={names['rule']} has it; choose another method, or privacy.secure_aggregation=true"
        )
    if privacy.unit == "example" and method.adapter.has_own_steps:
        raise UserError(
            f"privacy.unit=example knows the gradients of single rows in one pass over a batch, and "
            f"method.adapter={names['adapter']} has steps of its own; choose another method, or privacy.unit=client"
        )
    if hides_clients and method.weights is weights_by_examples:
        raise UserError(
            "method.weighting=num_examples lets a client with many rows move the mean by more than privacy.clip_norm / "
            "cohort_size, which the noise is made for; give method.weighting=uniform"
        )
    if hides_clients and privacy.clip_quantile is not None and method.rule.asks_again:
        raise UserError(
            f"privacy.clip_quantile={privacy.clip_quantile} follows the norms of one sum a round, and "
            f"method.rule={names['rule']} asks for several; leave it out"
        )
    rule = method.rule
    if hides_clients and isinstance(rule, ProductRule) and rule.by_sums and rule.sketch_width is None:
        raise UserError(
            "method.sketch_width=null is as wide as the number of clients that came, which privacy.unit=client hides; "
            "give a number, such as twice method.lora_rank"
        )
    if privacy.unit != "none" and method.adapter.looks_at_rows:
        raise UserError(
            f"method.init={getattr(method.adapter, 'init', '?')} of method.adapter={names['adapter']} is computed from "
            f"clients' rows, which privacy.unit={privacy.unit} does not count; give another method.init, such as "
            "random (fed_sb) or svd (scl)"
        )

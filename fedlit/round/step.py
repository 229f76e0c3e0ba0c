"""The server's step: the rule, a server optimizer along the change of its mean, and the groups beside the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fedlit.config import ServerConfig
from fedlit.errors import UserError
from fedlit.round.cohort import Cohort
from fedlit.round.jobs import LocalPart
from fedlit.round.plan import RoundPlan
from fedlit.round.rules import AggregationRule
from fedlit.round.server import ServerState
from fedlit.round.server_optimizers import Options, step


@dataclass(frozen=True, kw_only=True)
class ServerStep:
    """From what a cohort sent and the server's state to its next state; the same values on every process.

    population_share: from clients to the part of the whole population's weight that they have.
    """

    rule: AggregationRule
    options: ServerConfig
    parts: Sequence[LocalPart]
    population_share: Callable[[Sequence[int]], float]

    def __call__(self, cohort: Cohort, before: ServerState, plan: RoundPlan) -> ServerState:
        """Return the next server. After a round in which nobody returned, or whose sums cannot be read, it stands
        still.
        """
        if cohort.is_idle:
            return replace(before, round_idx=before.round_idx + 1, folded={}, folded_ranks={})
        after = self.rule(cohort, before)
        self._require_same_tensors(before, after)
        if self.options.optimizer != "none":
            after = step(self.options.optimizer, self._numbers, before, after, trained=plan.trains)
        share = self.population_share(cohort.client_ids)
        for part in self.parts:
            if part.group:
                tensors = part.server_step(before.group(part.group), cohort.mean(part.group), share)
                after = after.with_group(part.group, tensors)
        return replace(after, round_idx=before.round_idx + 1)

    def _require_same_tensors(self, before: ServerState, after: ServerState) -> None:
        """Refuse what the next round could not start from: a rule from outside may return anything."""
        rule, known, found = type(self.rule).__name__, before.shared, after.shared
        if names := sorted(known.keys() ^ found.keys()):
            lacks = "lacks" if names[0] in known else "adds"
            raise UserError(
                f"the rule {rule} {lacks} {names[0]}; return a server whose `shared` has the names it had before"
            )
        for name, tensor in known.items():
            if found[name].shape != tensor.shape:
                raise UserError(
                    f"the rule {rule} returns {name} of shape {tuple(found[name].shape)}; it must stay "
                    f"{tuple(tensor.shape)}"
                )

    @property
    def _numbers(self) -> Options:
        options = self.options
        lr = 1.0 if options.lr is None else options.lr
        return Options(lr=lr, beta1=options.beta1, beta2=options.beta2, tau=options.tau)

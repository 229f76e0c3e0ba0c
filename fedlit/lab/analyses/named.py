"""All analyses by name, in the order of the text that they leave."""

from collections.abc import Mapping, Sequence

from fedlit.config.keys import nearest
from fedlit.errors import UserError
from fedlit.lab.analyses.base import Analysis
from fedlit.lab.analyses.communication import Communication
from fedlit.lab.analyses.deviation import Deviation
from fedlit.lab.analyses.excess_risk import ExcessRisk
from fedlit.lab.analyses.fairness import Fairness
from fedlit.lab.analyses.forgetting import Forgetting
from fedlit.lab.analyses.generalisation import Generalisation
from fedlit.lab.analyses.initialisation import Initialisation
from fedlit.lab.analyses.memory import Memory
from fedlit.lab.analyses.norm_growth import NormGrowth
from fedlit.lab.analyses.rank_inflation import RankInflation
from fedlit.lab.analyses.stability import Stability
from fedlit.lab.analyses.subspaces import Subspaces

ANALYSES: Mapping[str, Analysis] = {
    each.name: each
    for each in (
        Deviation(),
        RankInflation(),
        Subspaces(),
        NormGrowth(),
        ExcessRisk(),
        Generalisation(),
        Communication(),
        Memory(),
        Stability(),
        Forgetting(),
        Fairness(),
        Initialisation(),
    )
}


def chosen(names: Sequence[str]) -> list[Analysis]:
    """Return the analyses of these names, all without any.

    Raises:
        UserError: there is none of a name.
    """
    for name in names:
        if name not in ANALYSES:
            raise UserError(f"--only={name} is no analysis{nearest(name, ANALYSES)} Valid: {', '.join(ANALYSES)}")
    return [each for name, each in ANALYSES.items() if not names or name in names]

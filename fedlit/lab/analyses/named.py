"""All analyses by name, in the order of the text that they leave."""

from collections.abc import Mapping, Sequence

from fedlit.config.keys import nearest
from fedlit.errors import UserError
from fedlit.lab.analyses.base import Analysis
from fedlit.lab.analyses.deviation import Deviation
from fedlit.lab.analyses.stability import Stability

ANALYSES: Mapping[str, Analysis] = {each.name: each for each in (Deviation(), Stability())}


def chosen(names: Sequence[str]) -> list[Analysis]:
    """Return the analyses of these names, all without any.

    Raises:
        UserError: there is none of a name.
    """
    for name in names:
        if name not in ANALYSES:
            raise UserError(f"--only={name} is no analysis{nearest(name, ANALYSES)} Valid: {', '.join(ANALYSES)}")
    return [each for name, each in ANALYSES.items() if not names or name in names]

"""Dense: weights of the pretrained model itself are trained and travel, with no factors beside them.

FedFTG (arXiv 2410.23111) trains the MLP's up projection in every block; federated full fine-tuning, FedAvg of McMahan
et al. (arXiv 1602.05629), trains the whole model.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from fedlit.adapters.base import Adapter, Calibration, trainable
from fedlit.adapters.options import DenseOptions
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.models import Projections


@dataclass(frozen=True, kw_only=True)
class Dense(DenseOptions, Adapter):
    """Trains all parameters of the target modules, weights and biases.

    They become float32 whatever the backbone's type, since small updates are lost in bfloat16. In a bfloat16 backbone
    their input stays bfloat16, so that the model runs under autocast only, unless it is trained as a whole.

    target_modules: `up`, the MLP's projection of the block's hidden state: the one beside the gate in a gated MLP, the
        first in a plain one. `model`, every parameter. Else see Projections.select and find; any module has a name.
    """

    @property
    def needs_autocast(self) -> bool:
        """Whether float32 weights stand among bfloat16 ones."""
        return self.target_modules != "model"

    def attach(
        self, model: nn.Module, projections: Projections, calibration: Calibration | None = None
    ) -> dict[str, float]:
        """Mark the chosen parameters as trainable and all others as frozen.

        Raises:
            UserError: a target is not known, or is no module with parameters of this model.
        """
        chosen = list(self._parameters(model, projections))
        if not chosen:
            raise UserError("method.target_modules=[] names no module; give up, model, or names of modules")
        model.requires_grad_(False)
        for parameter in chosen:
            parameter.data = parameter.data.float() if parameter.data.itemsize < 4 else parameter.data
            parameter.requires_grad_()
        return {}

    def shared(self, model: nn.Module) -> TensorDict:
        """Return the trained weights, tied ones once."""
        return {name: parameter.data for name, parameter in trainable(model).items()}

    def merged(self, model: nn.Module) -> TensorDict:
        """Return the trained weights: their names are the pretrained model's own."""
        return self.shared(model)

    def _parameters(self, model: nn.Module, projections: Projections) -> Iterator[nn.Parameter]:
        """Yield the parameters to train."""
        if self.target_modules == "model":
            yield from model.parameters()
            return
        for target in self._targets(projections):
            found = [
                parameter for module in projections.find(model, target).values() for parameter in module.parameters()
            ]
            if not found:
                raise UserError(
                    f"method.target_modules={self.target_modules}: this model has no module {target} with parameters; "
                    "give names of its modules"
                )
            yield from found

    def _targets(self, projections: Projections) -> tuple[str, ...]:
        """Return the names of the modules to train."""
        if self.target_modules != "up":
            try:
                return projections.select(self.target_modules)
            except UserError as error:
                raise UserError(f"{error}; a dense adapter also knows up and model") from error
        if len(projections.mlp) < 2:
            raise UserError(
                f"method.target_modules=up, but the MLP is {list(projections.mlp)}; "
                "name it with model.mlp=[up,down], or the modules to train with method.target_modules=[...]"
            )
        return (projections.mlp[-2],)

"""The centre in NVFlare's FedAvg workflow, which sends a model, waits for all sites, and asks for the next one.

A round of NVFlare is an exchange here: all sites join, train, or score what they have.
"""

from collections.abc import Mapping

from carried import ALL, OWN, carried, config, message_in
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.abstract.model import ModelLearnable, make_model_learnable
from nvflare.app_common.abstract.model_persistor import ModelPersistor
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator

from fedlit.sites.center import open_center
from fedlit.sites.conducting import JOIN, Conductor
from fedlit.sites.messages import Message

DONE = "done"
"""The metric that ends the workflow."""


class CenterAggregator(ModelAggregator):
    """fedlit's server: it takes every site's answer as it comes, in any order, and its rule aggregates.

    simulated: the sites' rows are those that `fedlit run` would deal from data.path.
    """

    def __init__(self, simulated: bool = False) -> None:
        super().__init__()
        self.simulated = simulated
        self._conductor: Conductor | None = None
        self._problem: Exception | None = None

    @property
    def conductor(self) -> Conductor:
        """Return what makes the exchanges; at first it loads the model and reads where the run folder stands."""
        if self._conductor is None:
            self._conductor = Conductor(center=open_center(config(), simulated=self.simulated))
        return self._conductor

    def reset_stats(self) -> None:
        """Begin an exchange."""
        _ = self.conductor

    def accept_model(self, model: FLModel) -> None:
        """Take in a site's answer. NVFlare logs what is raised here and goes on; `aggregate_model` ends the job."""
        try:
            self.conductor.take(model.meta["client_name"], message_in(model.params[OWN]))
        except Exception as error:
            self._problem = self._problem or error

    def aggregate_model(self) -> FLModel:
        """End the exchange; return the messages of the next one, by name of the site."""
        if self._problem is not None:
            raise self._problem
        waited, known = self.conductor.waits, len(self.conductor.records)
        messages = self.conductor.next()
        if waited:
            self.warning(f"{self.conductor.center.waits_for} sites have not joined: all are asked again")
            messages = {ALL: Message(kind=JOIN)}
        elif not known:
            for line in self.conductor.center.notices():
                self.warning(line)
        for record in self.conductor.records[known:]:
            self.info(f"record of round {record['round']}: {record}")
        return _model(messages or {ALL: Message(kind="end")}, done=not messages)


class FirstMessage(ModelPersistor):
    """Begins the workflow with the question who is there. The centre writes its run folder itself."""

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable:
        """Return the first message."""
        return make_model_learnable(weights=_model({ALL: Message(kind=JOIN)}).params, meta_props={})

    def save_model(self, model: ModelLearnable, fl_ctx: FLContext) -> None:
        """Keep nothing: messages are no model."""


class OwnMessage(DXOFilter):
    """Leaves of all messages the one of the site to which they are being sent: what is one site's goes to no other."""

    def __init__(self) -> None:
        super().__init__(supported_data_kinds=[DataKind.WEIGHTS], data_kinds_to_filter=None)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """Return the model with one message; that of a site which is not asked is empty."""
        name = fl_ctx.get_peer_context().get_identity_name()
        own = dxo.data.get(name, dxo.data.get(ALL))
        data = {OWN: carried(Message(kind="rest")) if own is None else own}
        return DXO(data_kind=dxo.data_kind, data=data, meta=dict(dxo.meta))


def _model(messages: Mapping[str, Message], done: bool = False) -> FLModel:
    params = {name: carried(message) for name, message in messages.items()}
    return FLModel(params_type=ParamsType.FULL, params=params, metrics={DONE: int(done)})

"""Rounds of every LoRA recipe on a random Llama in float64, with random steps in place of training, beside what they do
in dense matrices.

Each round goes through RoundWork, the transforms and the server's step; only the trainer is made up.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from factor_rounds import forward_weight, make_plan, seeded
from torch import Tensor

from fedlit import analysing
from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.tensors import TensorDict
from fedlit.client.host import ModelHost
from fedlit.config import MethodConfig, RunConfig, ServerConfig
from fedlit.methods import build_method
from fedlit.models import PROJECTIONS
from fedlit.round.cohort import Cohort
from fedlit.round.jobs import ClientJob, ClientResult, ClientState, Trainer
from fedlit.round.observers import Observer, RoundView
from fedlit.round.payload import MODEL
from fedlit.round.plan import RoundPlan
from fedlit.round.server import ServerState
from fedlit.round.step import ServerStep
from fedlit.round.work import LocalWork, RoundWork

NUM_EXAMPLES = (10, 30, 20, 40)
MIXED = [2, 5, 3, 5]
COHORTS = ((0, 1, 3), (1, 2), (0, 1, 2, 3))
RECIPE_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "fedit": ("fedit", {}),
    "ffa_lora": ("ffa_lora", {}),
    "fedsa_lora": ("fedsa_lora", {}),
    "flexlora": ("flexlora", {}),
    "flexlora, mixed ranks": ("flexlora", {"lora_rank": MIXED}),
    "hetlora, mixed ranks": ("hetlora", {"lora_rank": MIXED}),
    "flora": ("flora", {}),
    "flora, mixed ranks": ("flora", {"lora_rank": MIXED}),
    "fedex_lora": ("fedex_lora", {}),
    "fedex_lora, reinitialize": ("fedex_lora", {"assignment": "reinitialize"}),
    "fedex_lora, keep": ("fedex_lora", {"assignment": "keep"}),
    "fedex_lora, residual_rank=1": ("fedex_lora", {"residual_rank": 1}),
    "florist": ("florist", {}),
    "florist, mixed ranks": ("florist", {"lora_rank": MIXED, "energy_threshold": 1.0}),
    "fedmomentum": ("fedmomentum", {"energy_threshold": 1.0}),
    "fedmomentum, half": ("fedmomentum", {"energy_threshold": 0.5}),
    "lora_fair": ("lora_fair", {}),
    "fedsvd": ("fedsvd", {}),
    "fedrot_lora": ("fedrot_lora", {}),
    "rolora": ("rolora", {}),
    "la_lora": ("la_lora", {}),
    "fed_sb": ("fed_sb", {"init": "weights"}),
    "ravan": ("ravan", {"num_heads": 2}),
    "fedask": ("fedask", {}),
    "fedit, rslora": ("fedit", {"use_rslora": True}),
}


@dataclass(frozen=True, kw_only=True)
class Round:
    """A round's record beside dense effective weights (out, in) by layer name, and the products that stand in them."""

    layers: tuple[LoraLayer, ...]
    record: dict[str, float]
    weights: tuple[float, ...]
    started: list[TensorDict]
    ended: list[TensorDict]
    before: TensorDict
    after: TensorDict
    own_after: list[TensorDict]
    products: list[TensorDict]
    product_before: TensorDict
    product_after: TensorDict


def product(layer: LoraLayer, tensors: dict[str, Tensor], client_id: int | None, ranks: list[int] | None) -> Tensor:
    """Return scaling * B @ A, or with the core or the heads, written apart from the library's."""
    rank = layer.rank if ranks is None or client_id is None else ranks[client_id]
    scaling = layer.alpha / (rank**0.5 if layer.use_rslora else rank)
    if layer.core and layer.scale:
        cores = tensors[layer.core].split(tensors[layer.core].shape[1])
        core = torch.block_diag(*(scale * each for scale, each in zip(tensors[layer.scale], cores, strict=True)))
        return scaling * tensors[layer.b] @ core @ tensors[layer.a]
    left = tensors[layer.b] @ tensors[layer.core] if layer.core else tensors[layer.b]
    return scaling * left @ tensors[layer.a]


def mean_of(weights: tuple[float, ...], tensors: list[TensorDict], name: str) -> Tensor:
    return torch.stack([weight * one[name] for weight, one in zip(weights, tensors, strict=True)]).sum(0)


def mean_of_all(weights: tuple[float, ...], tensors: list[TensorDict]) -> TensorDict:
    return {name: mean_of(weights, tensors, name) for name in tensors[0]}


@dataclass(kw_only=True)
class RandomSteps(Trainer):
    """Moves trained tensors at random, those beyond a client's rank excepted; keeps dense effective weights.

    The `lost` send nothing.
    """

    host: ModelHost
    ranks: list[int] | None
    generator: torch.Generator
    lost: tuple[int, ...] = ()
    started: list[TensorDict] = field(default_factory=list)
    ended: list[TensorDict] = field(default_factory=list)
    products: list[TensorDict] = field(default_factory=list)

    def num_steps(self, num_examples: int) -> int:
        return 1

    def parameters(self) -> TensorDict:
        return {name: parameter.data for name, parameter in self.host.model.named_parameters()}

    def effective(self) -> TensorDict:
        """Return the effective weights of what is loaded in the model, with all that was folded into them."""
        return {layer.name: forward_weight(self.host.model, layer) for layer in self.host.layers}

    def server_products(self) -> TensorDict:
        """Return scaling * B @ A of what is loaded in the model, in the server's scaling."""
        loaded = self.parameters()
        return {layer.name: product(layer, loaded, None, None) for layer in self.host.layers}

    def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
        for job in jobs:
            if job.client_id in self.lost:
                yield ClientResult(client_id=job.client_id, payload=None)
                continue
            self.host.load_client(job)
            self.started.append(self.effective())
            for name, parameter in self.host.trained.items():
                step = 0.3 * torch.randn(parameter.shape, generator=self.generator, dtype=parameter.dtype)
                if self.ranks:
                    (step if ".lora_A." in name else step.T)[self.ranks[job.client_id] :] = 0
                if parameter.requires_grad:
                    parameter.data += step
            self.ended.append(self.effective())
            loaded = self.parameters()
            self.products.append(
                {layer.name: product(layer, loaded, job.client_id, self.ranks) for layer in self.host.layers}
            )
            shared, private = self.host.take()
            yield ClientResult(
                client_id=job.client_id, payload={MODEL: shared}, private=private, state=ClientState(private=private)
            )


@dataclass
class Federation:
    """A population that trains by random steps."""

    host: ModelHost
    observers: list[Observer]
    server: ServerState
    private: dict[int, TensorDict]
    ranks: list[int] | None
    generator: torch.Generator

    def of_each(
        self, server: ServerState, client_ids: Iterable[int], dense: Callable[[], TensorDict]
    ) -> list[TensorDict]:
        """Return what each client's model holds with the server's tensors."""
        self.host.load_server(server)
        found = []
        for client_id in client_ids:
            self.host.load_private(self.private[client_id])
            found.append(dense())
        return found

    def train(self, client_ids: tuple[int, ...], trainer: RandomSteps) -> tuple[RoundPlan, Cohort, LocalWork]:
        """Let clients train as the round loop would."""
        client_ids = tuple(sorted(client_ids))
        method, server = self.host.method, self.server
        weights = method.weights([NUM_EXAMPLES[client_id] for client_id in client_ids])
        plan = replace(make_plan(client_ids, weights, server.round_idx), trains=self.host.trains(server.round_idx))
        cohort = Cohort(
            plan,
            {MODEL: server.shared},
            keeps=method.rule.stacks or method.rule.asks_again,
            on_server=partial(method.transforms.on_server, server=server, plan=plan),
        )
        jobs = [
            ClientJob(
                client_id=client_id,
                rows=(),
                start=method.transforms.start(method.rule.start(server, client_id), server, client_id),
                state=ClientState(private=self.private[client_id]),
                plan=plan,
            )
            for client_id in client_ids
        ]
        self.host.load_server(server)
        round_work = RoundWork(
            trainer=trainer, transforms=method.transforms, observers=self.observers, drops_failures=False
        )
        work = round_work.run(plan, server, cohort, jobs)
        assert work.problem is None
        self.private |= {client_id: state.private for client_id, state in round_work.states.items()}
        return plan, cohort, work

    def record(self, view: RoundView, work: LocalWork) -> dict[str, Any]:
        """Return what the observers make of a round."""
        record = {}
        for index, observer in enumerate(self.observers):
            notes = {client_id: noted[index] for client_id, noted in work.notes.items()}
            record |= observer.record(replace(view, notes=notes))
        return record

    def trainer(self, lost: tuple[int, ...] = ()) -> RandomSteps:
        return RandomSteps(host=self.host, ranks=self.ranks, generator=self.generator, lost=lost)

    def round(self, client_ids: tuple[int, ...], lost: tuple[int, ...] = ()) -> Round:
        """Train clients, and aggregate; the `lost` are planned and send nothing."""
        before, trainer, method = self.server, self.trainer(lost), self.host.method
        private = dict(self.private)
        plan, cohort, work = self.train((*client_ids, *lost), trainer)
        assert work.lost.keys() == set(lost)
        cohort.close(client_ids)
        shares = method.weights([NUM_EXAMPLES[client_id] for client_id in client_ids])
        step = ServerStep(rule=method.rule, options=ServerConfig(), parts=(), population_share=lambda _: 1.0)
        self.server = step(cohort, before, plan)
        after_weights = self.of_each(self.server, client_ids, trainer.effective)
        after_products = self.of_each(self.server, client_ids, trainer.server_products)
        ended, self.private = self.private, private
        before_weights = self.of_each(before, client_ids, trainer.effective)
        before_products = self.of_each(before, client_ids, trainer.server_products)
        self.private = ended
        view = RoundView(plan=plan, before=before, after=self.server, cohort=cohort, notes={})
        return Round(
            layers=self.host.layers,
            record=self.record(view, work),
            weights=shares,
            started=trainer.started,
            ended=trainer.ended,
            before=mean_of_all(shares, before_weights),
            after=mean_of_all(shares, after_weights),
            own_after=after_weights,
            products=trainer.products,
            product_before=mean_of_all(shares, before_products),
            product_after=mean_of_all(shares, after_products),
        )


def builder(small_llama: Callable[..., Any], tmp_path: Path) -> Callable[..., Federation]:
    """Return what builds the federation of a case of RECIPE_OPTIONS that measures these analyses."""

    def build(case: str, analysis: Sequence[str]) -> Federation:
        name, options = RECIPE_OPTIONS[case]
        options = {"lora_rank": 2, "lora_alpha": 7.0, "target_modules": "attention", **options}
        config = RunConfig(
            method=MethodConfig(name=name, options=options),
            num_clients=len(NUM_EXAMPLES),
            analysis=list(analysis),
        )
        method = build_method(config)
        model = small_llama(dtype=torch.float64)
        torch.manual_seed(0)
        method.adapter.attach(model, PROJECTIONS["llama"])
        model.double()
        host = ModelHost(model, method, method.adapter.layers(model))
        folder: Any = SimpleNamespace(path=tmp_path)
        server = host.first_server(method.parts, len(NUM_EXAMPLES))
        return Federation(
            host=host,
            observers=analysing.analysis_observers(config, host, folder, server, keeps_late=False),
            server=server,
            private={client_id: host.first_state(method.parts).private for client_id in range(len(NUM_EXAMPLES))},
            ranks=options["lora_rank"] if isinstance(options["lora_rank"], list) else None,
            generator=seeded(5),
        )

    return build

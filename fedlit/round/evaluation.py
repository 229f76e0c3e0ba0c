"""Evaluation of the global model, or of every client's own, shared by all processes with the same numbers for any
number of them.

Batches are composed once for the whole set and dealt to the processes whole; the metrics' states are integers, or are
put in order before anything is computed.
"""

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from lightning.fabric import Fabric
from torch import nn
from torchmetrics import Metric

from fedlit.errors import DivergenceError
from fedlit.process import communication
from fedlit.process.interrupt import StopAsked
from fedlit.round.client_models import ClientModels, split_metrics
from fedlit.round.examples import KeptExamples
from fedlit.round.over_clients import Scores, over_clients, prefixed
from fedlit.scores import is_lower_better
from fedlit.tasks import Sample, Task

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a record has the scores on a set.

    key: of the model's scores, or of the means over clients. of_client: of one client's, over its id. called: what the
    set is called where a loss on it is not finite. with_worst: the worst client is told of, too.
    """

    key: str
    of_client: str
    called: str
    with_worst: bool = False


GLOBAL = Place(key="global", of_client="client/{}", called="the global test set")
OWN = Place(key="own", of_client="client/{}/own", called="the client's own test part", with_worst=True)
VALIDATION = Place(key="validation", of_client="client/{}/validation", called="the validation set")
OWN_VALIDATION = Place(key="validation", of_client="client/{}/validation", called="the client's own validation part")
GENERAL = Place(key="general", of_client="client/{}/general", called="the general set")

Batches = Sequence[Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Scores the model as it stands on fixed sets of examples: those of testing, or those of validation.

    batches: of the global set; none if only the clients' own are asked for.
    own_batches: of the part of every client that has one, by client id; none if only the global set is asked for.
    whole, part: where the scores on either stand.
    evaluated: clients whose own model is scored, where that is not all of them.
    kept: collects what is kept of single examples; nothing is without it.
    general: scores the model on texts that nobody trains on, whenever anything is scored; None for nothing.
    watch: yields the batches; its StopAsked, on whatever process, ends the evaluation on all of them.
    """

    fabric: Fabric
    model: nn.Module
    task: Task[Any, Any]
    batches: Batches
    own_batches: Mapping[int, Batches] = field(default_factory=dict)
    whole: Place = GLOBAL
    part: Place = OWN
    evaluated: Collection[int] | None = None
    kept: KeptExamples | None = None
    general: "Evaluator | None" = None
    watch: Callable[[Batches], Iterable[Sequence[Any]]] = iter

    @property
    def num_examples(self) -> int:
        """Examples of all sets."""
        return sum(len(batch) for batch in self._all_batches())

    @property
    def num_truncated(self) -> int:
        """Those of them of which a part is cut off."""
        return sum(example.truncated for batch in self._all_batches() for example in batch)

    def _all_batches(self) -> Iterator[Sequence[Any]]:
        for batches in (self.batches, *self.own_batches.values()):
            yield from batches

    def score(self, on: str, models: ClientModels | None) -> tuple[Scores, list[Sample]]:
        """Return a record's scores of the global model or, with `models`, of every client's own, and this process's
        samples.

        on: `global` (the global test set), `clients` (every client's own test part) or `both`.
        """
        record: Scores = {}
        samples: list[Sample] = []
        if on != "clients":
            record, samples = self._score_on_global(models)
        if on != "global":
            own, own_samples = self._score_on_own(models)
            record, samples = record | own, samples or own_samples
        return record, samples

    def _score_on_global(self, models: ClientModels | None) -> tuple[Scores, list[Sample]]:
        """Return `global/...`: the one model's scores, or means and spreads of those under `client/<id>/...`; of
        validation `validation/...` and `client/<id>/validation/...`.
        """
        samples: list[Sample] = []
        population = [] if models is None else self._evaluated(models.population)
        if models is None or models.mine is None:
            scores, samples = self.together()
            by_client = dict.fromkeys(population, scores)
        else:
            by_client = self.of_each_client(population, models)
        summary = over_clients(by_client.values()) if by_client else scores
        return prefixed(self.whole.of_client, by_client) | prefixed(self.whole.key, {0: summary}), samples

    def _evaluated(self, population: Collection[int]) -> list[int]:
        kept = [client_id for client_id in population if self.evaluated is None or client_id in self.evaluated]
        return kept or list(population)  # a pooled method has one client, whatever the sample is

    def _score_on_own(self, models: ClientModels | None) -> tuple[Scores, list[Sample]]:
        """Return `client/<id>/own/...`, and `own/...`: their means, spreads and the worst client's; of validation
        `client/<id>/validation/...` and `validation/...`.
        """
        samples: list[Sample] = []
        if models is None or models.mine is None:
            scores, samples = self.together_on_own()
        else:
            scores = self.of_each_client(self.own_batches.keys(), models, own=True)
        worst = (lambda name: not is_lower_better(name)) if self.part.with_worst else None
        summary = over_clients(scores.values(), lowest_is_worst=worst)
        return prefixed(self.part.of_client, scores) | prefixed(self.part.key, {0: summary}), samples

    def together(self) -> tuple[Scores, list[Sample]]:
        """Return the scores of a model that is the same on all processes, each taking its share of the batches.

        The samples are this process's own.
        """
        metrics, samples = agreed(lambda: self._run(communication.share(self.batches), self.whole))
        return self._compute(metrics), samples

    def together_on_own(self) -> tuple[dict[int, Scores], list[Sample]]:
        """Return such a model's scores on every client's own test part."""
        runs = agreed(
            lambda: {
                client_id: self._run(communication.share(batches), self.part, client_id)
                for client_id, batches in self.own_batches.items()
            }
        )
        samples = [sample for _, part in runs.values() for sample in part]
        return {client_id: self._compute(metrics) for client_id, (metrics, _) in runs.items()}, samples

    def of_each_client(self, clients: Collection[int], models: ClientModels, *, own: bool = False) -> dict[int, Scores]:
        """Return the scores of every client's own model, each computed by the process that holds the client.

        On the global set, several clients in one forward pass where the run has it so, or, with `own`, on the client's
        test part. All own clients run before the first metric is synchronised, so that no process waits for another's
        client.
        """

        def run_all() -> dict[int, dict[str, Metric]]:
            metrics: dict[int, dict[str, Metric]] = {}
            for group in models.groups(sorted(set(clients) & set(models.mine or ()))):
                if len(group) > 1 and not own:
                    with models.load_together(group):
                        metrics |= self._run_together(group)
                    continue
                for client_id in group:
                    models.load(client_id)
                    batches, place = (self.own_batches[client_id], self.part) if own else (self.batches, self.whole)
                    metrics[client_id], _ = self._run(batches, place, client_id)
            return metrics

        metrics = agreed(run_all)
        return {
            client_id: self._compute(metrics.get(client_id) or self._fresh_metrics()) for client_id in sorted(clients)
        }

    def _run_together(self, group: Sequence[int]) -> dict[int, dict[str, Metric]]:
        """Run the global set through several clients' models at once: each batch's rows once for each of them."""
        metrics = {client_id: self._fresh_metrics() for client_id in group}
        begin = self.kept.begin if self.kept else lambda *_: _keep_none
        keeps = [begin(self.whole.key, client_id, metrics[client_id]) for client_id in group]
        shared = split_metrics(metrics)
        with self._evaluating(self.whole, None):
            for batch in self.watch(self.batches):
                rows = [example for _ in group for example in batch]
                answered = self.task.evaluate(self.model, rows, shared, self.fabric.device)
                for place, keep in enumerate(keeps):
                    keep(batch, answered[place * len(batch) : (place + 1) * len(batch)])
        return metrics

    def _fresh_metrics(self) -> dict[str, Metric]:
        return {name: metric.to(self.fabric.device) for name, metric in self.task.metrics().items()}

    def _run(
        self, batches: Batches, place: Place = GLOBAL, client_id: int | None = None
    ) -> tuple[dict[str, Metric], list[Sample]]:
        """Run one set's batches; `place` names the set, and `client_id` whose model or part it is."""
        metrics = self._fresh_metrics()
        samples: list[Sample] = []
        keep = self.kept.begin(place.key, client_id, metrics) if self.kept else _keep_none
        with self._evaluating(place, client_id):
            for batch in self.watch(batches):
                answered = self.task.evaluate(self.model, batch, metrics, self.fabric.device)
                keep(batch, answered)
                samples.extend(answered)
        return metrics, samples

    @contextmanager
    def _evaluating(self, place: Place, client_id: int | None) -> Iterator[None]:
        """Let the block be an evaluation: of the model without dropout, its errors with the name of the set."""
        self.model.eval()
        try:
            with torch.no_grad(), self.fabric.autocast():
                yield
        except DivergenceError as error:
            client_id = error.client_id if client_id is None else client_id
            raise replace(error, what=f"the loss on {place.called}", client_id=client_id) from error
        finally:
            self.model.train()

    @staticmethod
    def _compute(metrics: Mapping[str, Metric]) -> Scores:
        scores: Scores = {}
        with warnings.catch_warnings():
            # A process without a batch has nothing to update; its share of the sum is zero.
            warnings.filterwarnings("ignore", message=r".*compute.. method of metric .* was called before the .*update")
            for name, metric in metrics.items():
                result = metric.compute()
                parts = result if isinstance(result, Mapping) else {name: result}
                scores.update({part: torch.as_tensor(value).tolist() for part, value in parts.items()})
        return scores


def _keep_none(batch: Sequence[Any], answered: Sequence[Sample]) -> None:
    """Keep nothing of single examples."""


def agreed(work: Callable[[], T]) -> T:
    """Return what this process's part of some work gives, once every process has done its own.

    Raises:
        StopAsked, DivergenceError: on every process, if one was asked to stop or met what is not finite: none may go on
        to a collective alone.
    """
    end: StopAsked | DivergenceError | None = None
    try:
        result = work()
    except (StopAsked, DivergenceError) as error:
        end = error
    for other in communication.gather_objects(end):
        if other is not None:
            raise other
    return result

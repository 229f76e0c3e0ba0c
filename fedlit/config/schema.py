"""The tree of options of one run: each dotted key, its type, its default and, in the string below, meaning and unit.

Neither torch nor lightning is imported here, so that a wrong key is reported at once.
"""

from dataclasses import dataclass, field
from typing import Any

from fedlit.config.data_schema import DataConfig as DataConfig  # noqa: PLC0414  a section like the others
from fedlit.config.method_schema import MethodConfig as MethodConfig  # noqa: PLC0414  a section like the others
from fedlit.config.privacy_schema import PrivacyConfig as PrivacyConfig  # noqa: PLC0414  a section like the others
from fedlit.options import option
from fedlit.ranges import (
    AT_LEAST_ONE,
    COUNT,
    FINITE,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_COUNT,
    PROCESSES,
    SEED,
    at_least,
)

ANALYSES = ("deviation", "rank", "subspaces", "norms", "dense", "forgetting")
"""What `analysis` may name."""


@dataclass
class ModelConfig:
    """The pretrained backbone, frozen wherever the adapter does not train it."""

    name: str = "tiny"
    """name of the backbone, as it stands in the run's name and its record"""
    path: str = "tiny"
    """Hugging Face model id, a local folder, or a model inside the package, such as `tiny`; where it is a LoRA adapter,
    its base is loaded, and a method that trains LoRA factors starts from the adapter's"""
    weights: str = option("pretrained", values=("pretrained", "random"))
    """`pretrained`, or `random`: drawn from the run's seed for the architecture that config.json describes"""
    tokenizer: str | None = None
    """the same as path, for the tokenizer alone; null for the model's own"""
    dtype: str = option("float32", values=("float32", "bfloat16"))
    """type of the frozen weights: `float32` or `bfloat16`"""
    quantization: str | None = option(None, values=("nf4",))
    """`nf4` for frozen linear layers in 4 bits (bitsandbytes, CUDA only); null for none"""
    gradient_checkpointing: bool = False
    """compute activations again in the backward pass: less memory, about a third more time"""
    max_length_tokens: int = option(256, range=POSITIVE_COUNT)
    """longest prompt and response together; the prompt's start is cut first, never the whole response"""
    attention_implementation: str = option("sdpa", values=("sdpa", "eager", "flash_attention_2"))
    """attention kernel of transformers: `sdpa`, `eager` or `flash_attention_2`"""
    attention: list[str] | None = None
    """names of the query, key, value and output projections, in this order; null to know them from the architecture"""
    mlp: list[str] | None = None
    """names of the MLP projections, the down projection last; null to know them from the architecture"""


@dataclass
class CohortConfig:
    """Who takes part in a round, and what becomes of it when somebody fails."""

    sampling: str = "fixed"
    """`fixed` (cohort_size clients), `poisson` (each with probability cohort_size / num_clients), or one of a plugin"""
    availability: str = "always"
    """which of them come back, and when: `always`, `bernoulli` (dropout), `trace` (intervals in which clients are on),
    `deadline` (a simulated clock), `buffered` (FedBuff), or one of a plugin"""
    over_selection: float = option(1.0, range=AT_LEAST_ONE)
    """clients that a round invites, as a multiple of cohort_size; the first cohort_size that come are summed"""
    options: dict[str, Any] = field(default_factory=dict)
    """options of the availability, and of a plugin's sampling, such as `{dropout: 0.2}`"""
    failures: str = option("stop", values=("stop", "drop"))
    """when a client's loss or update is not finite: `stop` the run, or `drop` the client from the round"""


@dataclass
class LocalConfig:
    """What one client does in one round."""

    steps: int | None = option(10, range=POSITIVE_COUNT)
    """optimizer steps of a client in a round, along its rows from where the last one ended; null with `local.epochs`"""
    epochs: int | None = option(None, range=POSITIVE_COUNT)
    """passes of a client in a round, each over every row once, a last batch may be short; null with `local.steps`"""
    batch_size: int = option(8, range=POSITIVE_COUNT)
    """rows of one batch"""
    accumulate: int = option(1, range=POSITIVE_COUNT)
    """batches whose gradients make one optimizer step"""
    clients_per_batch: int = option(1, range=POSITIVE_COUNT)
    """clients of a process whose batches go through the backbone in one pass, each through its own adapter"""
    lr: float = option(1e-3, range=POSITIVE)
    """learning rate of the local optimizer"""
    schedule: str = option("constant", values=("constant", "linear", "cosine"))
    """learning rate over the steps of `local.schedule_over`: `constant`, `linear` or `cosine` (both down to 0)"""
    schedule_over: str = option("round", values=("round", "run"))
    """`round`: the schedule runs over the steps of each round; `run`: over those of all rounds"""
    warmup: float = option(0.0, range=FRACTION)
    """share of the steps of `local.schedule_over` in which the learning rate rises from 0"""
    weight_decay: float = option(0.0, range=NOT_NEGATIVE)
    """decoupled weight decay of the local optimizer"""
    momentum: float = option(0.0, range=FRACTION)
    """momentum of method.optimizer=sgd"""
    max_grad_norm: float | None = option(None, range=POSITIVE)
    """gradients are clipped to this norm; null for no clipping"""
    optimizer_state: str = option("reset", values=("reset", "keep"))
    """`reset`: a new optimizer every round; `keep`: moments stay with their client across rounds"""
    prox_mu: float = option(0.0, range=NOT_NEGATIVE)
    """FedProx: weight mu of the term mu/2 |w - w_server|^2 in every client's loss; 0 for none"""
    scaffold: bool = False
    """SCAFFOLD: control variates correct every client's gradients; needs method.optimizer=sgd"""
    loss_on: str = option("response", values=("response", "all"))
    """`response`: loss on the response's tokens; `all`: on the prompt's too, as in the papers' released code"""
    label_smoothing: float = option(0.0, range=FRACTION)
    """share of the target distribution that is spread evenly over all tokens or classes"""


@dataclass
class ServerConfig:
    """How the server goes along the change of the mean of what the clients sent."""

    optimizer: str = option("none", values=("none", "fedavgm", "fedadam", "fedyogi", "fedadagrad"))
    """`none` (take the mean), `fedavgm`, `fedadam`, `fedyogi` or `fedadagrad`"""
    lr: float | None = option(None, range=POSITIVE)
    """server learning rate; null is 1 for fedavgm; of an adaptive one about the size of its step in every element"""
    beta1: float = option(0.9, range=FRACTION)
    """momentum"""
    beta2: float = option(0.99, range=FRACTION)
    """decay of the second moment (fedadam, fedyogi)"""
    tau: float = option(1e-3, range=POSITIVE)
    """adaptivity: the smaller, the less a step depends on the size of the change"""


@dataclass
class PartitionConfig:
    """How the rows are dealt to the clients, and each client's rows to training and test."""

    name: str = option(
        "dirichlet",
        values=("dirichlet", "quantity", "pathological", "natural", "files", "topics", "iid", "file", "given"),
    )
    """`dirichlet` (labels skewed), `quantity` (sizes skewed), `pathological` (a few labels a client), `natural` (by a
    column's values), `files` (each file a client), `topics` (texts clustered, then as dirichlet), `iid` (if
    data.label=null), `file` (row numbers), `given` (rows of each client, given to `fedlit.run`), or a plugin's"""
    seed: int | None = option(None, range=SEED)
    """root of the streams that sample and deal the rows and choose those that are scored, where it is not the run's
    seed; null for that"""
    alpha: float = option(0.1, range=POSITIVE)
    """concentration of the Dirichlet distribution of dirichlet, quantity and topics: small is skewed, large is alike"""
    column: str | None = None
    """column of `partition.name=natural`; null for the label column"""
    classes_per_client: int = option(2, range=POSITIVE_COUNT)
    """labels of one client under `partition.name=pathological`"""
    num_shards: int | None = option(None, range=POSITIVE_COUNT)
    """shards that the rows are dealt to, the first num_clients of which take part; null for as many as clients"""
    num_topics: int = option(10, range=at_least(2))
    """clusters of `partition.name=topics`"""
    path: str | None = None
    """JSON file of `partition.name=file`: row numbers of every client, or another run's partition.json"""
    key: str | None = None
    """name of the split inside that file; null if it holds one only"""
    options: dict[str, Any] = field(default_factory=dict)
    """options of a plugin's partition"""
    test_fraction: float = option(0.01, range=FRACTION)
    """share of a client's rows that is kept for its test part"""
    min_test_rows: int = option(8, range=COUNT)
    """rows in a client's test part at least"""
    validation_fraction: float = option(0.0, range=FRACTION)
    """share of a client's rows that is kept for validation, on which rounds and rates are chosen; 0 for none"""


@dataclass
class EvalConfig:
    """How the global model is evaluated."""

    every: int = option(1, range=POSITIVE_COUNT)
    """rounds between evaluations; the untrained model and the last round are always evaluated"""
    protocol: str = option("generate", values=("generate", "teacher_forced", "options"))
    """causal_lm: `generate` (decode), `teacher_forced` (argmax over the reference), `options` (the likeliest answer)"""
    max_examples: int | None = option(None, range=POSITIVE_COUNT)
    """size of a fixed random subset of the evaluation set, the same in every round; null for all"""
    max_clients: int | None = option(None, range=POSITIVE_COUNT)
    """clients evaluated where each has a model or test part of its own: a fixed random sample; null for all"""
    batch_size: int = option(16, range=POSITIVE_COUNT)
    """rows of one evaluation batch"""
    on: str = option("global", values=("global", "clients", "both"))
    """`global` (one test set: the data set's own, or the clients' together), `clients` (each on its own), or `both`"""
    max_new_tokens: int = option(64, range=POSITIVE_COUNT)
    """longest generated response"""
    num_beams: int = option(1, range=POSITIVE_COUNT)
    """beams of the search for a response; 1 is greedy decoding"""
    length_penalty: float = option(1.0, range=FINITE)
    """exponent of the length by which a beam's log-probability is divided"""
    no_repeat_ngram_size: int = option(0, range=COUNT)
    """n-grams of this length are generated once at most; 0 for no limit"""
    stop: list[str] = field(default_factory=list)
    """texts at the first of which a generated response is cut"""
    score: str | None = None
    """score that tells the best round and stops early; null for the data set's main one"""
    choose_on: str = option("validation", values=("validation", "test"))
    """set whose score tells the best round, stops early and picks rates: `validation`, or `test`, which flatters"""
    test: str = option("chosen", values=("chosen", "every"))
    """with a validation set, when the test set is scored: `chosen` (before training, at each new best round and the
    last) or `every` (at every evaluation)"""
    patience: int | None = option(None, range=POSITIVE_COUNT)
    """evaluations without a better score after which the run ends; null to run all rounds"""
    general: str | None = None
    """data set of analysis=[forgetting]: its name, or its YAML file; of it `eval.max_examples`, or 500"""


@dataclass
class RunFolderConfig:
    """Where the run writes."""

    dir: str = "runs"
    """folder that holds the run folders"""
    name: str | None = None
    """name of the run folder; null for <method>-<data>-<model>-seed<seed>"""
    export: str = option("adapter", values=("adapter", "merged"))
    """of a LoRA result: `adapter` (for PEFT; of higher rank where the backbone changes) or `merged`, the whole model"""
    result: str = option("last", values=("last", "best"))
    """round whose model is exported: `last`, or `best` by eval.score"""
    keep_checkpoints: int = option(2, range=POSITIVE_COUNT)
    """number of checkpoints kept, the newest ones"""
    example_scores: bool = True
    """keep the scores of every single test example, one parquet file for each evaluation"""
    requeue: bool = True
    """under SLURM, put the job back into the queue when its time limit (SIGUSR1) stops it after a finished round"""


@dataclass
class ComputeConfig:
    """What the run computes on; what `fabric run`, torchrun or srun say of accelerator, devices and num_nodes wins."""

    accelerator: str = option("auto", values=("auto", "cpu", "cuda"))
    """`cpu`, `cuda` or `auto`"""
    devices: int = option(1, range=PROCESSES)
    """processes on each node under plain python"""
    num_nodes: int = option(1, range=PROCESSES)
    """number of nodes under plain python"""
    precision: str = option("32-true", values=("32-true", "bf16-mixed"))
    """precision of the computation: `32-true` or `bf16-mixed`"""
    backend: str | None = option(None, values=("gloo", "nccl"))
    """communication backend: `gloo` or `nccl`; null for the accelerator's own"""
    threads: int = option(1, range=PROCESSES)
    """CPU threads of each process; it changes the bits of a matrix product, so it belongs to the configuration"""
    timeout_s: int = option(1800, range=POSITIVE_COUNT)
    """longest wait for another process in a collective"""
    start_timeout_s: int = option(300, range=POSITIVE_COUNT)
    """longest wait at the start until all processes are there; each reads its rows first"""


@dataclass
class LoggingConfig:
    """What a person sees besides the run folder."""

    loggers: list[str] = option(("wandb",), values=("wandb", "tensorboard", "csv"))
    """where every round's numbers go beside metrics.jsonl: `wandb`, `tensorboard`, `csv`, a plugin's, or several"""
    options: dict[str, Any] = field(default_factory=dict)
    """options of a plugin's loggers"""
    wandb: str = option("auto", values=("auto", "online", "offline", "disabled"))
    """Weights & Biases: `auto` (online with a login, else offline), `online`, `offline` or `disabled`"""
    project: str = "fedlit"
    """W&B project"""
    group: str | None = None
    """W&B group; a sweep gives its own name; null for none"""
    tags: list[str] = field(default_factory=list)
    """W&B tags"""
    samples_every: int = option(5, range=POSITIVE_COUNT)
    """rounds between tables of sample generations; those of the last evaluation are always kept"""
    samples_kept: int | None = option(None, range=COUNT)
    """examples of each evaluation whose prompt, reference and answer are kept in samples.jsonl; null for 8, but for
    none where privacy.unit=example hides the clients' rows"""
    samples_shown: int = option(0, range=COUNT)
    """those of them that the console shows after each evaluation"""
    artifact: bool = False
    """upload the result as a W&B artifact"""
    progress: bool = True
    """progress bar inside a round, on a terminal"""


@dataclass
class RunConfig:
    """One federation."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    num_clients: int = option(3, range=POSITIVE_COUNT)
    """clients in the population"""
    cohort_size: int | None = None
    """clients of one round, drawn anew every round; null for all"""
    cohort: CohortConfig = field(default_factory=CohortConfig)
    num_rounds: int = option(5, range=POSITIVE_COUNT)
    """rounds of the federation"""
    seed: int = option(0, range=SEED)
    """root of every random stream"""
    local: LocalConfig = field(default_factory=LocalConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    analysis: list[str] = option(("deviation", "rank", "subspaces", "norms"), values=ANALYSES)
    """what is measured inside every round: `deviation` (of the aggregate from the clients' mean), `rank` (inflation),
    `subspaces` (angles), `norms` (of weights and gradients); not by default `dense` (rank and subspaces of whole
    matrices) and `forgetting` (loss on `eval.general`)"""
    run: RunFolderConfig = field(default_factory=RunFolderConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    plugins: list[str] = field(default_factory=list)
    """Python modules, on the import path or in the working folder, that register parts of their own; those that are
    installed with an entry point in the group fedlit.plugins are found without it"""
    dry_run: bool = False
    """print sizes, bytes and memory without loading weights, and stop"""

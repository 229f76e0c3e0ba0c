"""The tree of options of one run: each dotted key, its type, its default and, in the string below, meaning and unit.

Neither torch nor lightning is imported here, so that a wrong key is reported at once.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class DataConfig:
    """Where the rows come from, and what of a row goes in and what is to be predicted."""

    name: str = "pydoc"
    """name of the data set, as it stands in the run's name and its record"""
    task: str = "causal_lm"
    """`causal_lm` (a response follows its prompt), `sequence_classification` or `image_classification`"""
    source: str = "pydoc"
    """reader: `pydoc` (the interpreter's own docstrings), `digits` (scikit-learn's images), `jsonl` (a local file),
    `images` (a folder with one folder for each class, or an .npz file), `hub` (Hugging Face) or `memory` (Python's)"""
    path: str | None = None
    """local .jsonl or .jsonl.gz file, .npz file or folder of images; when given it is read instead of the hub"""
    test_path: str | None = None
    """the same for a test set of its own, which is then the global one; null if there is none"""
    hub_id: str | None = None
    """name of the data set on the Hugging Face hub"""
    hub_config: str | None = None
    """configuration (subset) of the hub data set; null if it has one only"""
    hub_split: str = "train"
    """split of the hub data set"""
    hub_test_split: str | None = None
    """split of the hub data set that is its test set; null if there is none"""
    hub_test_id: str | None = None
    """hub data set that hub_test_split belongs to; null for the same"""
    hub_test_config: str | None = None
    """configuration of hub_test_id; null if it has one only"""
    test_columns: list[str] = field(default_factory=list)
    """columns that the test set calls otherwise, each as `<name here>=<name there>`"""
    template: str = "{prompt}\n"
    """causal_lm: prompt as a Python format string over the row's columns; the response follows it directly. In
    `${prompt}$` the column stands between dollar signs; braces that are no column are doubled"""
    prompt: str | None = None
    """causal_lm: column that is the prompt as it stands, with a line break after it, in place of a template"""
    test_template: str | None = None
    """causal_lm: prompt at evaluation where it differs from the one of training; null for the same"""
    required: list[str] = field(default_factory=lambda: ["prompt"])
    """causal_lm: columns that must be present and not blank in every row, the response aside"""
    response: str = "response"
    """causal_lm: column that holds the response"""
    text: list[str] = field(default_factory=lambda: ["text"])
    """sequence_classification: the column that is read, or two of a pair"""
    image: str = "image"
    """image_classification: column that holds the image"""
    target: str = "label"
    """classification: column that holds the class, as its number from 0 or its name, or the number to predict"""
    classes: list[str] | None = None
    """classification: names of the classes in the order of their numbers; null for those of the training rows"""
    regression: bool = False
    """sequence_classification: the target is a number, not a class"""
    label: str | None = "label"
    """column whose values the partition skews; null for data without labels"""
    drop_empty: bool = False
    """leave out rows with an empty response instead of stopping with an error"""
    sample: int | None = None
    """number of rows drawn from the data set in proportion to the labels; null for all rows"""
    multiple_references: bool = False
    """causal_lm: test rows with one prompt are one example whose responses are all right"""
    scores: list[str] | None = None
    """scores in the record besides the loss, the main one first; null for the task's own"""
    answer: str | None = None
    """causal_lm: what exact_match compares: `text`, `number` (the last one), `boxed` (LaTeX), `option`; null: none"""
    options: str | None = None
    """causal_lm: regular expression whose group 1 in the prompt lists the valid answers with slashes between them"""
    score_by: str | None = None
    """causal_lm: column by whose values exact_match and accuracy are told apart too; null for none"""


@dataclass
class ModelConfig:
    """The pretrained backbone, frozen wherever the adapter does not train it."""

    name: str = "tiny"
    """name of the backbone, as it stands in the run's name and its record"""
    path: str = "tiny"
    """Hugging Face model id, a local folder, or a model inside the package, such as `tiny`"""
    weights: str = "pretrained"
    """`pretrained`, or `random`: drawn from the run's seed for the architecture that config.json describes"""
    tokenizer: str | None = None
    """the same as path, for the tokenizer alone; null for the model's own"""
    dtype: str = "float32"
    """type of the frozen weights: `float32` or `bfloat16`"""
    quantization: str | None = None
    """`nf4` for frozen linear layers in 4 bits (bitsandbytes, CUDA only); null for none"""
    gradient_checkpointing: bool = False
    """compute activations again in the backward pass: less memory, about a third more time"""
    max_length_tokens: int = 256
    """longest prompt and response together; the prompt's start is cut first, never the whole response"""
    attention_implementation: str = "sdpa"
    """attention kernel of transformers: `sdpa`, `eager` or `flash_attention_2`"""
    attention: list[str] | None = None
    """names of the query, key, value and output projections, in this order; null to know them from the architecture"""
    mlp: list[str] | None = None
    """names of the MLP projections, the down projection last; null to know them from the architecture"""


@dataclass
class MethodConfig:
    """One recipe (adapter x optimizer x rule) and its own options, which `configs/method/<name>.yaml` declares."""

    name: str = "fedit"
    """name of the recipe in `fedlit/methods.py`"""
    adapter: str | None = None
    """adapter in place of the recipe's own; null to keep it"""
    optimizer: str | None = None
    """local optimizer in place of the recipe's own; null to keep it"""
    rule: str | None = None
    """aggregation rule in place of the recipe's own; null to keep it"""
    transforms: list[str] | None = None
    """what happens to an update between client and rule, in place of the recipe's own, in order; null to keep those"""
    pooled: bool | None = None
    """true: one client trains on everybody's rows with as many steps as all would; null as the recipe says"""
    private_head: bool = False
    """true: a classification head stays with its client; false: it travels like the adapter's tensors"""
    options: dict[str, Any] = field(default_factory=dict)
    """the recipe's options, written on the command line as `method.<option>=`"""


@dataclass
class CohortConfig:
    """Who takes part in a round, and what becomes of it when somebody fails."""

    sampling: str = "fixed"
    """`fixed` (cohort_size clients without replacement) or `poisson` (each client by itself with probability
    cohort_size / num_clients; a round may be empty), or one of a plugin"""
    availability: str = "always"
    """which of them come back: `always`, or one of a plugin"""
    options: dict[str, Any] = field(default_factory=dict)
    """options of a plugin's sampling or availability, such as `{rate: 0.2}`"""
    failures: str = "stop"
    """when a client's loss or update is not finite: `stop` the run, or `drop` the client from the round"""


@dataclass
class LocalConfig:
    """What one client does in one round."""

    steps: int | None = 10
    """optimizer steps of a client in a round, along its rows from where the last one ended; null with `local.epochs`"""
    epochs: int | None = None
    """passes of a client in a round, each over every row once, a last batch may be short; null with `local.steps`"""
    batch_size: int = 8
    """rows of one batch"""
    accumulate: int = 1
    """batches whose gradients make one optimizer step"""
    lr: float = 1e-3
    """learning rate of the local optimizer"""
    schedule: str = "constant"
    """learning rate over the steps of `local.schedule_over`: `constant`, `linear` or `cosine` (both down to 0)"""
    schedule_over: str = "round"
    """`round`: the schedule runs over the steps of each round; `run`: over those of all rounds"""
    warmup: float = 0.0
    """share of the steps of `local.schedule_over` in which the learning rate rises from 0"""
    weight_decay: float = 0.0
    """decoupled weight decay of the local optimizer"""
    momentum: float = 0.0
    """momentum of method.optimizer=sgd"""
    max_grad_norm: float | None = None
    """gradients are clipped to this norm; null for no clipping"""
    optimizer_state: str = "reset"
    """`reset`: a new optimizer every round; `keep`: moments stay with their client across rounds"""
    prox_mu: float = 0.0
    """FedProx: weight mu of the term mu/2 |w - w_server|^2 in every client's loss; 0 for none"""
    scaffold: bool = False
    """SCAFFOLD: control variates correct every client's gradients; needs method.optimizer=sgd"""
    loss_on: str = "response"
    """`response`: loss on the response's tokens; `all`: on the prompt's too, as in the papers' released code"""
    label_smoothing: float = 0.0
    """share of the target distribution that is spread evenly over all tokens or classes"""


@dataclass
class ServerConfig:
    """How the server goes along the change of the mean of what the clients sent."""

    optimizer: str = "none"
    """`none` (take the mean), `fedavgm`, `fedadam`, `fedyogi` or `fedadagrad`"""
    lr: float | None = None
    """server learning rate; null is 1 for fedavgm; of an adaptive one about the size of its step in every element"""
    beta1: float = 0.9
    """momentum"""
    beta2: float = 0.99
    """decay of the second moment (fedadam, fedyogi)"""
    tau: float = 1e-3
    """adaptivity: the smaller, the less a step depends on the size of the change"""


@dataclass
class PartitionConfig:
    """How the rows are dealt to the clients, and each client's rows to training and test."""

    name: str = "dirichlet"
    """`dirichlet` (equal sizes, labels skewed), `quantity` (labels alike, sizes skewed), `pathological` (a few labels a
    client), `natural` (a column's values dealt to the clients), `topics` (texts clustered, then as dirichlet), `iid`
    (the default with data.label=null), `file` or `given` (rows of each client, given to `fedlit.run`)"""
    alpha: float = 0.1
    """concentration of the Dirichlet distribution of dirichlet, quantity and topics: small is skewed, large is alike"""
    column: str | None = None
    """column of `partition.name=natural`; null for the label column"""
    classes_per_client: int = 2
    """labels of one client under `partition.name=pathological`"""
    num_shards: int | None = None
    """shards that the rows are dealt to, the first num_clients of which take part; null for as many as clients"""
    num_topics: int = 10
    """clusters of `partition.name=topics`"""
    path: str | None = None
    """JSON file of `partition.name=file`: row numbers of every client, or another run's partition.json"""
    key: str | None = None
    """name of the split inside that file; null if it holds one only"""
    test_fraction: float = 0.01
    """share of a client's rows that is kept for its test part"""
    min_test_rows: int = 8
    """rows in a client's test part at least"""


@dataclass
class EvalConfig:
    """How the global model is evaluated."""

    every: int = 1
    """rounds between evaluations; the untrained model and the last round are always evaluated"""
    protocol: str = "generate"
    """causal_lm: `generate` (decoding), `teacher_forced` (argmax over the reference, as in the papers' released code)
    or `options` (the likeliest of the valid answers)"""
    max_examples: int | None = None
    """size of a fixed random subset of the evaluation set, the same in every round; null for all"""
    max_clients: int | None = None
    """clients that are evaluated where each has a model or a test part of its own: a fixed random sample, the same in
    every round; null for all"""
    batch_size: int = 16
    """rows of one evaluation batch"""
    on: str = "global"
    """`global` (one test set: the data set's own, or the clients' together), `clients` (each on its own), or `both`"""
    max_new_tokens: int = 64
    """longest generated response"""
    num_beams: int = 1
    """beams of the search for a response; 1 is greedy decoding"""
    length_penalty: float = 1.0
    """exponent of the length by which a beam's log-probability is divided"""
    no_repeat_ngram_size: int = 0
    """n-grams of this length are generated once at most; 0 for no limit"""
    stop: list[str] = field(default_factory=list)
    """texts at the first of which a generated response is cut"""
    score: str | None = None
    """score that tells the best round and stops early; null for the data set's main one"""
    patience: int | None = None
    """evaluations without a better score after which the run ends; null to run all rounds"""
    deviation: bool = True
    """for LoRA methods, measure every round how far the aggregate is from the mean of the clients' effective weights"""


@dataclass
class RunFolderConfig:
    """Where the run writes."""

    dir: str = "runs"
    """folder that holds the run folders"""
    name: str | None = None
    """name of the run folder; null for <method>-<data>-<model>-seed<seed>"""
    export: str = "adapter"
    """form of a LoRA result: `adapter` (for PEFT; of higher rank where the backbone changes too) or `merged` (the whole
    model); other results are whole models"""
    result: str = "last"
    """round whose model is exported: `last`, or `best` by eval.score"""
    keep_checkpoints: int = 2
    """number of checkpoints kept, the newest ones"""
    requeue: bool = True
    """under SLURM, put the job back into the queue when its time limit (SIGUSR1) stops it after a finished round"""


@dataclass
class ComputeConfig:
    """What the run computes on; what `fabric run`, torchrun or srun say of accelerator, devices and num_nodes wins."""

    accelerator: str = "auto"
    """`cpu`, `cuda` or `auto`"""
    devices: int = 1
    """processes on each node under plain python"""
    num_nodes: int = 1
    """number of nodes under plain python"""
    precision: str = "32-true"
    """precision of the computation: `32-true` or `bf16-mixed`"""
    backend: str | None = None
    """communication backend: `gloo` or `nccl`; null for the accelerator's own"""
    threads: int = 1
    """CPU threads of each process; it changes the bits of a matrix product, so it belongs to the configuration"""
    timeout_s: int = 1800
    """longest wait for another process in a collective"""
    start_timeout_s: int = 300
    """longest wait at the start until all processes are there; each reads its rows first"""


@dataclass
class LoggingConfig:
    """What a person sees besides the run folder."""

    loggers: list[str] = field(default_factory=lambda: ["wandb"])
    """where every round's numbers go beside metrics.jsonl: `wandb`, `tensorboard`, `csv`, or several of them"""
    wandb: str = "auto"
    """Weights & Biases: `auto` (online with a login, else offline), `online`, `offline` or `disabled`"""
    project: str = "fedlit"
    """W&B project"""
    group: str | None = None
    """W&B group; a sweep gives its own name; null for none"""
    tags: list[str] = field(default_factory=list)
    """W&B tags"""
    samples_every: int = 5
    """rounds between tables of sample generations; those of the last evaluation are always kept"""
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
    num_clients: int = 3
    """clients in the population"""
    cohort_size: int | None = None
    """clients of one round, drawn anew every round; null for all"""
    cohort: CohortConfig = field(default_factory=CohortConfig)
    num_rounds: int = 5
    """rounds of the federation"""
    seed: int = 0
    """root of every random stream"""
    local: LocalConfig = field(default_factory=LocalConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    run: RunFolderConfig = field(default_factory=RunFolderConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    plugins: list[str] = field(default_factory=list)
    """Python modules, on the import path or in the working folder, that register parts of their own"""
    dry_run: bool = False
    """print sizes, bytes and memory without loading weights, and stop"""

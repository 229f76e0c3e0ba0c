"""Values out of range, not valid or at odds with one another are refused with the remedy; idle settings are named."""

from pathlib import Path

import pytest

from fedlit.config import ComputeConfig, DataConfig, RunConfig, check, check_launcher, load_config, no_effect_warnings
from fedlit.config.checks import valid_values
from fedlit.config.keys import SCHEMA
from fedlit.errors import UserError

LISTS = ("analysis", "logging.loggers")
VALID = {key: valid for key, valid in valid_values(DataConfig.task).items() if key not in LISTS}
RANGES = {key for key, option in SCHEMA.items() if option.range}

RANGE_CASES = [
    *((key, "0", "at least 1") for key in ("num_clients", "num_rounds", "data.sample", "model.max_length_tokens")),
    *((key, "0", "at least 1") for key in ("local.steps", "local.epochs", "local.batch_size")),
    *((key, "0", "at least 1") for key in ("local.clients_per_batch", "run.keep_checkpoints")),
    *((key, "0", "at least 1") for key in ("eval.every", "eval.max_examples", "eval.batch_size")),
    *((key, "0", "at least 1") for key in ("eval.max_new_tokens", "method.lora_rank")),
    *((key, "0", "at least 1") for key in ("local.accumulate", "partition.classes_per_client", "eval.num_beams")),
    ("eval.patience", "0", "at least 1"),
    ("logging.samples_every", "0", "at least 1"),
    ("eval.no_repeat_ngram_size", "-1", "at least 0"),
    ("eval.length_penalty", ".inf", "a finite number"),
    ("partition.num_topics", "1", "at least 2"),
    *((key, "0", "at least 1") for key in ("compute.devices", "compute.num_nodes", "compute.threads")),
    ("compute.timeout_s", "0", "at least 1"),
    *((key, "0", "at least 1") for key in ("partition.num_shards", "eval.max_clients")),
    *((key, "2147483648", "up to 2147483647") for key in ("num_rounds", "method.lora_rank", "compute.timeout_s")),
    *((key, "65537", "up to 65536") for key in ("compute.devices", "compute.num_nodes", "compute.threads")),
    ("compute.start_timeout_s", "0", "at least 1"),
    ("method=fedex_lora method.residual_rank", "-1", "at least 0"),
    ("method=fedex_lora method.residual_rank", "2147483648", "up to 2147483647"),
    ("method=fedsvd method.svd_every", "0", "at least 1"),
    *((f"method={name} method.energy_threshold", "0", "above 0, up to") for name in ("florist", "fedmomentum")),
    ("method=florist method.energy_threshold", "1.01", "above 0, up to and including 1"),
    ("method=lora_fair method.regularization", "-0.1", "at least 0"),
    ("method=scl method.compression_dim", "0", "at least 1"),
    ("method=fedftg method.galore.rank", "0", "at least 1"),
    ("method=fedftg method.galore.scale", ".inf", "finite number above 0"),
    ("seed", "-1", "at least 0"),
    ("seed", "9223372036854775808", "up to 9223372036854775807"),
    ("partition.min_test_rows", "-1", "at least 0"),
    *(
        (key, text, "finite number above 0")
        for key in (
            *("partition.alpha", "local.lr", "local.max_grad_norm", "method.lora_alpha"),
            *("server.lr", "server.tau", "method=fed_sb method.init_lr"),
        )
        for text in ("0", "-1", ".inf", ".nan", "1e-45", "1e39")
    ),
    *(
        (key, text, "at least 0")
        for key in ("local.weight_decay", "local.prox_mu")
        for text in ("-0.1", ".inf", ".nan")
    ),
    *(
        (key, text, "not including, 1")
        for key in ("partition.test_fraction", "partition.validation_fraction")
        for text in ("1", "-0.1", ".nan")
    ),
    ("partition.seed", "-1", "at least 0"),
    *(("cohort.over_selection", text, "from 1 to 1000") for text in ("0.9", "1001", ".nan")),
    *(
        (f"privacy.{name}", "0", "finite number above 0")
        for name in ("epsilon", "clip_norm", "clip_lr", "clip_count_noise")
    ),
    ("privacy.noise_multiplier", "-1", "at least 0"),
    *((f"privacy.{name}", "1", "above 0 and below 1") for name in ("delta", "threshold")),
    *((f"privacy.{name}", "1", "not including, 1") for name in ("clip_quantile", "unmask_dropout")),
    *((f"privacy.{name}", "0", "at least 1") for name in ("noise_cohort_size", "population", "neighbours")),
    ("privacy.canaries", "-1", "at least 0"),
    *((key, "-1", "at least 0") for key in ("logging.samples_kept", "logging.samples_shown")),
    *(
        (key, "1", "not including, 1")
        for key in ("method.lora_dropout", "local.momentum", "local.warmup", "local.label_smoothing")
    ),
    *((key, "1", "not including, 1") for key in ("server.beta1", "server.beta2")),
]


@pytest.mark.parametrize(("key", "text", "remedy"), RANGE_CASES)
def test_a_value_out_of_range_is_refused(key: str, text: str, remedy: str) -> None:
    *picked, key = key.split()
    with pytest.raises(UserError) as caught:
        load_config([*picked, f"{key}={text}"])
    message = str(caught.value)
    assert message.startswith(f"{key}=")
    assert "command line" in message
    assert remedy in message


def test_every_range_has_a_case() -> None:
    assert {key for key, _, _ in RANGE_CASES if "method." not in key} == RANGES


@pytest.mark.parametrize("key", sorted(VALID))
def test_a_value_that_is_not_valid_is_answered_with_the_valid_ones(key: str, config_dir: Path) -> None:
    near = VALID[key][0]
    with pytest.raises(UserError) as caught:
        load_config([f"{key}={near}x"], config_dir)
    message = str(caught.value)
    assert f"{key}={near}x (command line)" in message
    assert f"did you mean {near!r}?" in message
    assert message.endswith(", ".join(VALID[key]))


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, valid in VALID.items() for value in valid])
def test_every_valid_value_passes(key: str, value: str, config_dir: Path, tmp_path: Path) -> None:
    for name in ("rows.jsonl", "split.json"):
        (tmp_path / name).touch()
    also = [f"data.path={tmp_path / 'rows.jsonl'}", "server.lr=0.01", "data.options=(.*)"]
    also += [f"partition.path={tmp_path / 'split.json'}"] if value == "file" else []
    also += ["partition.validation_fraction=0.1"] if value == "best" else []
    also += ["privacy.clip_norm=1", "privacy.epsilon=1"] if key == "privacy.unit" else []
    load_config([f"{key}={value}", *also], config_dir)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["cohort_size=4"], ["cohort_size=4", "1 to num_clients=3"]),
        (["cohort_size=0"], ["cohort_size=0", "1 to num_clients=3"]),
        (["logging.loggers=[tensorbord]"], ["names tensorbord", "mean 'tensorboard'?", "wandb, tensorboard, csv"]),
        (
            ["analysis=[rank, subspace]"],
            ["names subspace; did you mean 'subspaces'?", "Valid analyses: deviation, rank"],
        ),
        (["eval.deviation=false"], ["eval.deviation (command line) is not there any more; give analysis=[] in place"]),
        (["logging.tags=['']"], ["logging.tags=", "0 characters", "1 to 64"]),
        (["local.steps=null"], ["local.steps=null", "local.epochs=<number>"]),
        (["local.steps=1", "local.epochs=2"], ["local.epochs=2", "local.steps=1", "leave one"]),
        (["partition.test_fraction=0", "partition.min_test_rows=0"], ["partition.test_fraction=0", "above 0"]),
        (["data.label=null", "partition.name=dirichlet"], ["partition.name=dirichlet", "partition.name=iid"]),
        (["data.label=null", "partition.name=natural"], ["partition.name=natural", "partition.column=<column>"]),
        (["data.path=none.jsonl"], ["data.path=none.jsonl", "is not there (seen from", ".jsonl, .csv"]),
        (["data.path=[rows.jsonl, none.csv]"], ["data.path=", "names none.csv, which is not there", ".parquet"]),
        (["data.path=sites/*.csv"], ["data.path=sites/*.csv", "is not there"]),
        (["data.path=[]"], ["data.path=[]", "names no file"]),
        (["data.validation_path=none.jsonl"], ["data.validation_path=none.jsonl", "is not there"]),
        (["data.test_path=none.jsonl"], ["data.test_path=none.jsonl", "is not there"]),
        (
            ["data.task=image_classification", "data.path=none.npz"],
            ["data.path=none.npz", "is not there", ".npz file or a folder"],
        ),
        (["data.source=images"], ["data.source=images", "data.path="]),
        (["data.label=null", "partition.name=pathological"], ["partition.name=pathological", "data.label=<column>"]),
        (["partition.num_shards=2"], ["partition.num_shards=2", "below num_clients=3"]),
        (["partition.name=file"], ["partition.name=file", "partition.path="]),
        (["partition.path=none.json"], ["partition.path=none.json", "is not a file"]),
        (["data.task=image_classification", "partition.name=topics"], ["partition.name=topics", "clusters texts"]),
        (["data.scores=[mcc]"], ["data.scores=[mcc]", "no score of data.task=causal_lm", "rouge_l"]),
        (["data.scores=[]"], ["data.scores=[]", "names no score"]),
        (["data.scores=[exact_match]"], ["data.answer=null", "number"]),
        (["eval.score=f1"], ["eval.score=f1", "loss, rouge_l"]),
        (["eval.score=nist"], ["eval.score=nist", "not be in the record", "loss, rouge_l, bleu_4"]),
        (["eval.score=loss/x"], ["eval.score=loss/x", "a part of loss", "give eval.score=loss"]),
        (["eval.score=loss_macro"], ["eval.score=loss_macro", "a part of loss"]),
        (["eval.score=rouge_l/x"], ["a part of rouge_l"]),
        (["eval.score=loss/"], ["a part of loss"]),
        (["eval.score=own/loss"], ["is no score"]),
        (["eval.score=loss_worst"], ["is no score"]),
        (
            ["data.scores=[exact_match]", "data.answer=text", "eval.score=exact_match/x"],
            ["a part of exact_match", "data.score_by=null"],
        ),
        (
            ["data.scores=[exact_match]", "data.answer=text", "eval.score=exact_match_macro"],
            ["a part of exact_match", "data.score_by=null"],
        ),
        (["data.task=sequence_classification", "eval.score=accuracy/x"], ["a part of accuracy, which has none"]),
        (["data.task=sequence_classification", "eval.score=pearson"], ["data.regression=false"]),
        (["data.task=sequence_classification", "data.regression=true", "eval.score=f1"], ["data.regression=true"]),
        (["data.task=sequence_classification", "data.text=[a, b, c]"], ["data.text=[a, b, c]", "pair"]),
        (["data.regression=true"], ["data.regression=true", "no meaning"]),
        (["eval.protocol=options"], ["eval.protocol=options", "data.options="]),
        (["data.answer=option"], ["data.answer=option", "data.options="]),
        (
            ["partition.test_fraction=0", "partition.min_test_rows=0", "eval.on=both", "data.test_path=rows.jsonl"],
            ["partition.test_fraction=0", "above 0"],
        ),
        (["data.source=jsonl"], ["data.source=jsonl", "data.path="]),
        (["data.source=table"], ["data.source=table", "data.path="]),
        (["data.source=hub"], ["data.source=hub", "data.hub_id="]),
        (["model.path=./none"], ["model.path=./none", "is not a folder"]),
        (["run.name=a/b"], ["run.name=a/b", "without path separators"]),
        (["run.name=a\\b"], ["run.name=", "without path separators"]),
        (["run.name=.."], ["run.name=..", "folder"]),
        (["data.name=a/b"], ["data.name=a/b", "without path separators"]),
        (["model.name=a/b"], ["model.name=a/b", "without path separators"]),
        (
            ["method.target_modules=qk"],
            ["method.target_modules=qk", "'qkv'", "attention, mlp, all", "[q_proj"],
        ),
        (["method.target_modules=[]"], ["method.target_modules=[]", "qkv, attention, mlp, all"]),
    ],
)
def test_what_cannot_work_is_refused(
    arguments: list[str], parts: list[str], config_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").touch()
    with pytest.raises(UserError) as caught:
        load_config(arguments, config_dir)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize(
    "arguments",
    [
        ["cohort_size=1"],
        ["cohort_size=3"],
        ["partition.test_fraction=0"],
        ["partition.min_test_rows=0"],
        ["data.label=null", "partition.name=iid"],
        ["data.label=null", "partition.name=natural", "partition.column=site"],
        ["data.source=hub", "data.hub_id=some/rows"],
        ["seed=0"],
        ["local.weight_decay=0"],
        ["model.path=."],
        ["data.test_path=rows.jsonl", "partition.test_fraction=0", "partition.min_test_rows=0"],
        ["data.task=image_classification", "data.path=."],
        ["eval.score=loss", "eval.patience=2", "partition.validation_fraction=0.1"],
        ["eval.patience=2", "eval.choose_on=test"],
        ["run.result=best", "data.validation_path=rows.jsonl"],
        ["run.result=best", "data.source=hub", "data.hub_id=some/rows", "data.hub_validation_split=validation"],
        ["run.result=best", "partition.name=file", "partition.path=rows.jsonl"],  # whose parts may be those of a run
    ],
)
def test_what_can_work_passes(
    arguments: list[str], config_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").touch()
    load_config(arguments, config_dir)


def test_rows_without_a_label_are_dealt_alike_by_default(config_dir: Path) -> None:
    assert load_config([], config_dir).partition.name == "dirichlet"
    assert load_config(["data.label=null"], config_dir).partition.name == "iid"
    assert load_config(["data.label=null", "partition.name=quantity"], config_dir).partition.name == "quantity"


def test_the_defaults_pass_without_origins() -> None:
    check(RunConfig())
    with pytest.raises(UserError, match=r"num_rounds=0 \(default\)"):
        check(RunConfig(num_rounds=0))


def test_the_launchers_strategy_and_precision() -> None:
    plain, mixed = ComputeConfig(), ComputeConfig(precision="bf16-mixed")
    check_launcher({"LT_DEVICES": "2", "LT_CLI_USED": "1"}, plain)
    check_launcher({"LT_PRECISION": "bf16-mixed"}, mixed)
    check_launcher({"LT_PRECISION": "32"}, plain)
    check_launcher({"LT_PRECISION": "bf16"}, mixed)
    with pytest.raises(UserError, match=r"--strategy=ddp.*leave out --strategy"):
        check_launcher({"LT_STRATEGY": "ddp"}, plain)
    with pytest.raises(UserError, match=r"--precision=bf16-mixed.*compute\.precision=32-true.*leave out --precision"):
        check_launcher({"LT_PRECISION": "bf16-mixed"}, plain)


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [
        ([], []),
        (["partition.alpha=0.5"], []),
        (["partition.alpha=0.5", "partition.name=iid"], ["partition.alpha=0.5 has no effect with partition.name=iid"]),
        (["partition.column=x"], ["partition.column=x has no effect with partition.name=dirichlet"]),
        (["partition.column=x", "partition.name=natural"], []),
        (["eval.max_new_tokens=8"], []),
        (
            ["eval.max_new_tokens=8", "eval.protocol=teacher_forced"],
            ["eval.max_new_tokens=8 has no effect with eval.protocol=teacher_forced"],
        ),
        (["local.optimizer_state=keep"], []),
        (
            ["local.optimizer_state=keep", "num_rounds=1"],
            ["local.optimizer_state=keep has no effect with num_rounds=1"],
        ),
        (["eval.every=2", "num_rounds=1"], ["eval.every=2 has no effect with num_rounds=1"]),
        (
            ["local.schedule_over=run"],
            ["local.schedule_over=run has no effect with local.schedule=constant and local.warmup=0.0"],
        ),
        (["local.schedule_over=run", "local.schedule=linear"], []),
        (["local.schedule_over=run", "local.warmup=0.1"], []),
        (
            ["local.schedule_over=run", "local.schedule=linear", "num_rounds=1"],
            ["local.schedule_over=run has no effect with num_rounds=1"],
        ),
        (["data.hub_id=some/rows"], ["data.hub_id=some/rows has no effect with data.source=pydoc"]),
        (["partition.num_topics=5"], ["partition.num_topics=5 has no effect with partition.name=dirichlet"]),
        (["eval.num_beams=2", "eval.length_penalty=0.9"], []),
        (["eval.length_penalty=0.9"], ["eval.length_penalty=0.9 has no effect with eval.num_beams=1"]),
        (["eval.score=loss"], ["eval.score=loss has no effect with eval.patience=null and run.result=last"]),
        (["eval.score=loss", "run.result=best", "eval.choose_on=test"], []),
        (["eval.test=every", "partition.validation_fraction=0.1"], []),
        (["eval.test=every"], ["eval.test=every has no effect with no validation set"]),
        (
            ["data.task=sequence_classification", "eval.num_beams=2", "local.loss_on=all"],
            [
                "local.loss_on=all has no effect with data.task=sequence_classification",
                "eval.num_beams=2 has no effect with data.task=sequence_classification",
            ],
        ),
        (
            ["data.test_path=rows.jsonl", "partition.min_test_rows=5"],
            ["partition.min_test_rows=5 has no effect with a test set of the data's own and eval.on=global"],
        ),
        (["logging.group=g"], []),
        (["logging.group=g", "logging.wandb=disabled"], ["logging.group=g has no effect with logging.wandb=disabled"]),
        (["logging.loggers=[csv, wandb]", "logging.tags=[a]", "logging.artifact=true"], []),
        (["logging.loggers=[csv]", "logging.tags=[a]"], ["logging.tags=[a] has no effect with logging.loggers=[csv]"]),
        (
            ["logging.loggers=[]", "logging.wandb=offline"],
            ["logging.wandb=offline has no effect with logging.loggers=[]"],
        ),
    ],
)
def test_a_setting_without_effect_is_a_warning(
    arguments: list[str], warned: list[str], config_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").touch()
    assert no_effect_warnings(load_config(arguments, config_dir)) == warned


@pytest.mark.parametrize("text", ["text", "[8, text]", "true"])
def test_an_option_of_a_method_s_own_file_that_is_no_number_is_refused(text: str, config_dir: Path) -> None:
    path = config_dir / "method/fedit.yaml"
    path.write_text(f"name: fedit\nlora_rank: {text}\nlora_alpha: 16.0\nlora_dropout: 0.0\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"method\.lora_rank=") as caught:
        load_config([], config_dir)
    assert "\n" not in str(caught.value)


def test_a_residual_of_no_rank_is_allowed() -> None:
    """FedEx-LoRA without its residual is FedIT."""
    assert load_config(["method=fedex_lora", "method.residual_rank=0"]).method.options["residual_rank"] == 0


def test_the_folder_of_a_run_is_no_model(config_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "config.yaml").write_text("", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_config([f"model.path={tmp_path}"], config_dir)
    assert str(caught.value).endswith(f"is a run's folder; give its result, model.path={tmp_path / 'adapter'}")

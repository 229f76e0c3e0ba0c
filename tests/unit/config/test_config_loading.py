"""What the command line and the YAML files say is what the configuration holds, or one line tells what is wrong."""

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedlit.config import RunConfig, load_config
from fedlit.errors import UserError


def error(arguments: list[str], config_dir: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_config(arguments, config_dir)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_defaults_are_the_schemas_and_the_method_files(config_dir: Path) -> None:
    expected = RunConfig()
    expected.method.options = {
        "lora_rank": 8,
        "lora_alpha": 16.0,
        "target_modules": "qkv",
        "weighting": "num_examples",
        "lora_dropout": 0.0,
        "use_rslora": False,
    }
    assert load_config([], config_dir) == expected


def test_each_layer_wins_over_the_one_below(config_dir: Path) -> None:
    assert load_config([], config_dir).data.sample is None
    assert load_config(["data=questions"], config_dir).data.sample == 300
    assert load_config(["data=questions", "experiment=both"], config_dir).data.sample == 200
    assert load_config(["data=questions", "experiment=both", "data.sample=100"], config_dir).data.sample == 100
    # without a value on a layer, the one below shows through
    config = load_config(["experiment=both"], config_dir)
    assert (config.data.name, config.data.label, config.num_rounds, config.local.lr) == ("questions", "topic", 7, 0.5)
    assert config.method.options["galore"] == {"rank": 2, "scale": 0.25}


def test_a_choice_on_the_command_line_wins_over_the_experiments(config_dir: Path) -> None:
    config = load_config(["experiment=both", "data=pydoc"], config_dir)
    assert (config.data.name, config.data.sample) == ("pydoc", 200)


def test_the_order_of_arguments_does_not_matter(config_dir: Path) -> None:
    arguments = ["experiment=both", "data=pydoc", "local.epochs=2"]
    configs = [load_config(list(order), config_dir) for order in itertools.permutations(arguments)]
    assert all(config == configs[0] for config in configs)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("### {prompt}: #1", "### {prompt}: #1"),  # a comment and a mapping, were it YAML
        ('"{prompt}\\n"', "{prompt}\n"),
        ("'{prompt}\\n'", "{prompt}\\n"),
        ("007", "007"),
        ("off", "off"),
        ("a=b", "a=b"),
        ("[a, b]", "[a, b]"),
    ],
)
def test_text_is_taken_as_it_stands_unless_quoted(text: str, value: str, config_dir: Path) -> None:
    assert load_config([f"data.template={text}"], config_dir).data.template == value


@pytest.mark.parametrize(
    ("argument", "value"),
    [("1e-3", 0.001), ("1E-3", 0.001), ("2", 2.0), (".5", 0.5)],
)
def test_numbers_are_read_as_numbers(argument: str, value: float, config_dir: Path) -> None:
    lr = load_config([f"local.lr={argument}"], config_dir).local.lr
    assert (lr, type(lr)) == (value, float)


def test_null_lists_and_mappings(config_dir: Path) -> None:
    config = load_config(
        ["data.label=null", "partition.name=iid", "data.required=[a, b]", "local={lr: 2, batch_size: 3}"], config_dir
    )
    assert (config.data.label, config.data.required) == (None, ["a", "b"])
    assert (config.local.lr, config.local.batch_size) == (2.0, 3)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("method.lora_rank=2", 2),
        ("method.flag=true", True),
        ("method.ranks=[1, 2, 3]", [1, 2, 3]),
        ("method.anything=[1, a]", [1, "a"]),
        ("method.anything=x", "x"),
        ("method.galore.scale=1", 1.0),
    ],
)
def test_options_take_the_type_of_their_default(argument: str, value: object, config_dir: Path) -> None:
    option: object = load_config(["method=nested", argument], config_dir).method.options
    for part in argument.partition("=")[0].split(".")[1:]:
        assert isinstance(option, dict)
        option = option[part]
    assert (option, type(option)) == (value, type(value))


def test_a_text_option_takes_a_list_of_texts(config_dir: Path) -> None:
    config = load_config(["method.target_modules=[q_proj, v_proj]"], config_dir)
    assert config.method.options["target_modules"] == ["q_proj", "v_proj"]


def test_epochs_and_steps_switch(config_dir: Path) -> None:
    def length(*arguments: str) -> tuple[int | None, int | None]:
        local = load_config(arguments, config_dir).local
        return local.steps, local.epochs

    assert length() == (10, None)
    assert length("local.epochs=1") == (None, 1)
    assert length("experiment=passes") == (None, 3)
    assert length("experiment=passes", "local.steps=4") == (4, None)
    assert length("local.epochs=1", "local.steps=null") == (None, 1)
    assert length("experiment=passes", "local.steps=null") == (None, 3)
    assert "leave one of them out" in error(["local.epochs=1", "local.steps=4"], config_dir)


def test_a_backbone_without_a_name_takes_the_last_part_of_its_path(config_dir: Path) -> None:
    assert load_config(["model=hf", "model.path=some/model"], config_dir).model.name == "model"
    assert load_config(["model=hf", "model.path=some/model", "model.name=mine"], config_dir).model.name == "mine"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["local.stepz=3"], ["'local.stepz'", "command line", "did you mean 'local.steps'", "batch_size", "loss_on"]),
        (["lr=3"], ["'lr'", "command line", "did you mean 'local.lr'", "num_clients"]),
        (["batch_size=3"], ["'local.batch_size' or 'eval.batch_size'"]),
        (["max_grad_nrm=3"], ["did you mean 'local.max_grad_norm'"]),
        (["local.lr.x=3"], ["'local.lr.x'", "'local.lr'"]),
        (["zzz=1"], ["'zzz'", "command line", "num_clients", "experiment"]),
        (["+local.lr=3"], ["'+local.lr'", "did you mean 'local.lr'"]),
        (["local={stepz: 1}"], ["'local.stepz'", "'local.steps'"]),
        (["method.lora_rnk=3"], ["'method.lora_rnk'", "'method.lora_rank'", "weighting"]),
        (["method=nested", "method.weightig=uniform"], ["'method.weightig'", "'method.weighting'", "galore"]),
        (["method=nested", "method.galore.rnk=1"], ["'method.galore.rnk'", "'method.galore.rank'", "in method.galore"]),
        (["method.options.lora_rank=3"], ["'method.options.lora_rank'", "'method.lora_rank'"]),
        (["method.name=nested"], ["method.name=nested", "write method=nested"]),
        (["data=qestions"], ["data=qestions", "command line", "'questions'", "pydoc, questions"]),
        (["experiment=bth"], ["experiment=bth", "'both'", "both, passes"]),
        (["local.steps=abc"], ["local.steps=abc", "command line", "integer or null"]),
        (["local.steps=1.5"], ["local.steps=1.5", "integer"]),
        (["local.steps=true"], ["local.steps=true", "integer"]),
        (["local.lr=fast"], ["local.lr=fast", "number"]),
        (["local.lr=true"], ["local.lr=true", "number"]),
        (["local.lr=null"], ["local.lr=null", "number"]),
        (["dry_run=perhaps"], ["dry_run=perhaps", "true or false"]),
        (["data.required=prompt"], ["data.required=prompt", "list of text"]),
        (["data.required=[a, 1]"], ["data.required=[a, 1]", "list of text"]),
        (["data.name=null"], ["data.name=null", "text"]),
        (["local=5"], ["local=5", "command line", "steps, epochs"]),
        (["method.lora_rank=4.5"], ["method.lora_rank=4.5", "integer"]),
        (["method.lora_rank=[4]"], ["method.lora_rank=[4]", "num_clients=3"]),
        (["method.target_modules=[1]"], ["method.target_modules=[1]", "text or list of text"]),
        (["method=nested", "method.flag=3.5"], ["method.flag=3.5", "true or false"]),
        (["method=nested", "method.ranks=8"], ["method.ranks=8", "list of integer"]),
        (["method=nested", "method.ranks=[a]"], ["method.ranks=[a]", "list of integer"]),
        (["method=nested", "method.galore=3"], ["method.galore=3", "rank, scale"]),
        (["dry_run"], ["'dry_run'", "write dry_run=<value>"]),
        (["seed\x85"], ['write "seed\\u0085"=<value>']),
        (["=3"], ["'=3'", "<key>=<value>"]),
        (["--devices=2"], ["'--devices=2'", "before the script"]),
        (["local.lr="], ["'local.lr'", "command line", "empty", "local.lr=null"]),
        (["local.lr=[1"], ["local.lr=[1", "YAML"]),
        (["data.name='a"], ["data.name='a", "YAML"]),
        (["data.path=${HOME}/x"], ["data.path=${HOME}/x", "not expanded"]),
        (["seed=1", "seed=2"], ["seed is given twice", "command line", "1 and 2"]),
        (["data=pydoc", "data=questions"], ["data is given twice", "pydoc and questions"]),
        (["local.lr=1", "local={lr: 2}"], ["local.lr is given twice", "leave one out"]),
        (["model=hf"], ["model.path", "configs/model/hf.yaml", "add model.path=<value>"]),
    ],
)
def test_a_mistake_on_the_command_line_is_named(arguments: list[str], parts: list[str], config_dir: Path) -> None:
    message = error(arguments, config_dir)
    assert [part for part in parts if part not in message] == [], message


def test_the_same_value_twice_is_no_mistake(config_dir: Path) -> None:
    assert load_config(["seed=1", "seed=1"], config_dir).seed == 1


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("data/pydoc.yaml", "name: pydoc\nlabl: x\n", ["'data.labl'", "configs/data/pydoc.yaml", "'data.label'"]),
        ("data/pydoc.yaml", "name: pydoc\nlabel: [\n", ["configs/data/pydoc.yaml, line", "YAML"]),
        ("data/pydoc.yaml", "name: pydoc\n\n\tlabel: x\n", ["configs/data/pydoc.yaml, line 3", "YAML"]),
        (
            "data/pydoc.yaml",
            "sample: 1\nsample: 2\n",
            ["configs/data/pydoc.yaml, line 2", "key sample; leave"],
        ),
        (
            "data/pydoc.yaml",
            "classes: a\nclasses:\n  path: x\n",
            [
                "configs/data/pydoc.yaml, line 2",
                "key classes, with a value and",
                "as classes.path: and so on",
            ],
        ),
        (
            "data/pydoc.yaml",
            "name: pydoc\nsource_options.folder: x\n",
            ["unknown key 'data.source_options.folder'", "one mapping; give data.source_options={folder: ...}"],
        ),
        ("data/pydoc.yaml", "name: pydoc\nsample: many\n", ["data.sample=many", "configs/data/pydoc.yaml", "integer"]),
        ("data/pydoc.yaml", "sample: 0\n", ["data.sample=0", "configs/data/pydoc.yaml", "at least 1"]),
        ("data/pydoc.yaml", "- name\n", ["configs/data/pydoc.yaml", "no mapping", "key: value"]),
        (
            "data/pydoc.yaml",
            "name: 007\n",
            ["007", "configs/data/pydoc.yaml, line 1", "decimal", "in quotes if it is a text"],
        ),
        ("data/pydoc.yaml", "name: a\nlabel: ${x}\n", ["configs/data/pydoc.yaml", "${", "not expanded"]),
        ("method/fedit.yaml", "lora_rank: 8\n", ["configs/method/fedit.yaml", "name: <recipe>"]),
        (
            "method/fedit.yaml",
            "name: fedit\ntop-k: 8\n",
            ["'method.top-k'", "configs/method/fedit.yaml", "in method"],
        ),
        ("method/fedit.yaml", "name: fedit\noptions: {}\n", ["'method.options'", "configs/method/fedit.yaml"]),
        ("method/fedit.yaml", "name: fedti\n", ["method=fedti", "mean fedit?"]),
        ("method/fedit.yaml", "name: 7\n", ["method.name=7", "configs/method/fedit.yaml", "text"]),
        ("method/fedit.yaml", "name: fedit\nadapter: 7\n", ["method.adapter=7", "configs/method/fedit.yaml", "text"]),
        ("method/fedit.yaml", "name: fedit\ntransforms: x\n", ["method.transforms=x", "list of text"]),
        (
            "method/fedit.yaml",
            "name: fedit\nsvd_every: 2\n",
            ["method.svd_every (configs/method/fedit.yaml)", "an option of none", "of method.rule=fedsvd"],
        ),
        ("experiment/both.yaml", "data: qestions\n", ["data=qestions", "configs/experiment/both.yaml", "'questions'"]),
        ("experiment/both.yaml", "locl.lr: 1\n", ["'locl.lr'", "configs/experiment/both.yaml", "'local.lr'"]),
        ("experiment/both.yaml", "experiment: passes\n", ["'experiment'", "configs/experiment/both.yaml"]),
        (
            "experiment/both.yaml",
            "local.lr: 1\nlocal: {lr: 2}\n",
            ["local.lr", "configs/experiment/both.yaml", "twice"],
        ),
        ("experiment/both.yaml", "method: {name: nested}\n", ["method.name=nested", "configs/experiment/both.yaml"]),
    ],
)
def test_a_mistake_in_a_file_is_named(name: str, text: str, parts: list[str], config_dir: Path) -> None:
    (config_dir / name).write_text(text, encoding="utf-8")
    message = error(["experiment=both"] if name.startswith("experiment") else [], config_dir)
    assert [part for part in parts if part not in message] == [], message


def test_a_section_without_content_is_nothing(config_dir: Path) -> None:
    (config_dir / "experiment/both.yaml").write_text("local:\n  # lr: 3\ndata:\n", encoding="utf-8")
    assert load_config(["experiment=both"], config_dir) == load_config([], config_dir)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in error([], tmp_path / "none")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arguments=st.lists(
        st.tuples(
            st.sampled_from(
                ["seed", "local.lr", "data.name", "data", "method.target_modules", "local", "data.required"]
            )
            | st.text(max_size=6),
            st.sampled_from(["=", ""]),
            st.text(max_size=8),
        ).map("".join),
        max_size=3,
    )
)
def test_any_argument_gives_a_configuration_or_one_line(arguments: list[str], config_dir: Path) -> None:
    try:
        load_config(arguments, config_dir)
    except UserError as mistake:
        assert len(str(mistake).splitlines()) == 1

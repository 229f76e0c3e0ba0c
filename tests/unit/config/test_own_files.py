"""A user's own files, given by their paths, and the whole configuration of a run, given again."""

from pathlib import Path

import pytest

from fedlit.config import RunConfig, load_config, load_yaml, to_yaml
from fedlit.config.layers import SECTIONS
from fedlit.config.reading import dump_yaml
from fedlit.config.record import nested_values
from fedlit.errors import UserError


@pytest.fixture
def here(tmp_path: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, in which the tests write files."""
    assert config_dir.is_dir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(here: Path, name: str, text: str) -> str:
    path = here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return name


def error(arguments: list[str], config_dir: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_config(arguments, config_dir)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_a_file_holds_what_an_experiment_holds(here: Path, config_dir: Path) -> None:
    text = (config_dir / "experiment/both.yaml").read_text(encoding="utf-8")
    name = write(here, "mine/my.yaml", text)
    expected = load_config(["experiment=both", "seed=3"], config_dir)
    assert load_config([name, "seed=3"], config_dir) == expected
    assert load_config(["seed=3", name], config_dir) == expected
    assert load_config([f"experiment={name}", "seed=3"], config_dir) == expected
    assert load_config([str(here / name), "seed=3"], config_dir) == expected


def test_later_files_lie_above_earlier_ones_and_below_the_command_line(here: Path, config_dir: Path) -> None:
    first = write(here, "first.yaml", "num_rounds: 2\nlocal.lr: 0.25\nseed: 1\n")
    second = write(here, "second.yml", "num_rounds: 3\nlocal: {lr: 0.5}\n")
    config = load_config([first, second, "num_rounds=9"], config_dir)
    assert (config.num_rounds, config.local.lr, config.seed) == (9, 0.5, 1)
    config = load_config([second, first, "experiment=both"], config_dir)
    assert (config.num_rounds, config.local.lr, config.data.sample) == (2, 0.25, 200)


def test_a_file_may_start_from_an_experiment(here: Path, config_dir: Path) -> None:
    named = write(here, "mine/named.yaml", "experiment: both\nnum_rounds: 3\n")
    config = load_config([named], config_dir)
    assert (config.method.name, config.data.sample, config.num_rounds) == ("nested", 200, 3)
    write(here, "mine/base.yaml", "experiment: both\nseed: 4\nnum_rounds: 4\ndata.sample: 150\n")
    by_path = write(here, "mine/above.yaml", "experiment: base.yaml\nnum_rounds: 5\n")
    config = load_config([by_path], config_dir)
    assert (config.method.name, config.seed, config.data.sample, config.num_rounds) == ("nested", 4, 150, 5)
    config = load_config([by_path, "experiment=passes"], config_dir)
    assert (config.method.name, config.seed, config.local.epochs, config.num_rounds) == ("fedit", 0, 3, 5)
    # What two files start from lies below both.
    other = write(here, "other.yaml", "experiment: both\nlocal.lr: 0.125\n")
    config = load_config([other, named], config_dir)
    assert (config.local.lr, config.num_rounds) == (0.125, 3)


def test_options_of_the_method_below_are_no_mistake(here: Path, config_dir: Path) -> None:
    fedit = load_config([], config_dir).method
    above = write(here, "above.yaml", "experiment: both\nmethod: fedit\n")
    for words in ([above], ["experiment=both", "method=fedit"], [above, "method=fedit"]):
        assert load_config(words, config_dir).method == fedit
    own = write(here, "own.yaml", "method: nested\nmethod.galore.rank: 3\n")
    assert load_config([above, own], config_dir).method.options["galore"] == {"rank": 3, "scale": 0.25}


def test_a_group_s_file_is_given_by_its_path(here: Path, config_dir: Path) -> None:
    data = write(here, "mine/sub/rows.yaml", "label: topic\nsample: 7\n")
    write(here, "mine/my.yaml", "data: sub/rows.yaml\n")
    for words in ([f"data={data}"], ["mine/my.yaml"], [f"data={here / data}"]):
        config = load_config(words, config_dir)
        assert (config.data.name, config.data.label, config.data.sample) == ("rows", "topic", 7)
    method = write(here, "own.yaml", "name: fedit\nlora_rank: 2\n")
    assert load_config([f"method={method}"], config_dir).method.options["lora_rank"] == 2
    model = write(here, "a.b.yaml", "path: tiny\n")
    assert load_config([f"model={model}"], config_dir).model.name == "a.b"


def test_a_name_is_a_choice_and_a_suffix_makes_a_path(here: Path, config_dir: Path) -> None:
    write(here, "both.yaml", "num_rounds: 11\n")
    assert load_config(["experiment=both"], config_dir).num_rounds == 7
    assert load_config(["experiment=both.yaml"], config_dir).num_rounds == 11
    write(config_dir, "data/glue/cola.yaml", "name: cola\n")
    assert load_config(["data=glue/cola"], config_dir).data.name == "cola"
    lr = write(here, "lr=0.1/my.yaml", "local.lr: 0.1\n")
    assert load_config([f"./{lr}"], config_dir).local.lr == 0.1


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["mine/mi.yaml"], ["mine/mi.yaml (command line) is not there", "seen from", "'mine/my.yaml'"]),
        (["experiment=mine/mi.yaml"], ["experiment=mine/mi.yaml (command line)", "'mine/my.yaml'"]),
        (["data=pydco.yaml"], ["data=pydco.yaml (command line)", "'pydoc'"]),
        (["nowhere/x.yaml"], ["nowhere/x.yaml", "is not there", "give the path of a YAML file"]),
        (["data=mine/my"], ["data=mine/my", "mean the file mine/my.yaml?"]),
        (["both"], ["'both' is no key=value", "write experiment=both"]),
        (["mine"], ["'mine' is no key=value", "write mine=<value>"]),
        (["stored"], ["'stored' is no key=value", "write stored/config.yaml"]),
        (["folder.yaml"], ["folder.yaml (command line) is no file", "'folder.yaml/config.yaml'"]),
        (["mine/typo.yaml"], ["'local.stepz' (mine/typo.yaml)", "'local.steps'"]),
        (["mine/type.yaml"], ["num_rounds=many (mine/type.yaml) has the wrong type"]),
        (["mine/range.yaml"], ["num_rounds=-1 (mine/range.yaml) is out of range"]),
        (["mine/pick.yaml"], ["data=qestions (mine/pick.yaml)", "'questions'"]),
        (["mine/gone.yaml"], ["data=rows.yaml (mine/gone.yaml) is not there", "seen from mine"]),
        (["mine/list.yaml"], ["mine/list.yaml holds no mapping"]),
        (["mine/bad.yaml"], ["mine/bad.yaml, line 2"]),
        (["mine/loop.yaml"], ["experiment=loop.yaml (mine/loop2.yaml) starts from itself"]),
        (["experiment=mine/loop.yaml"], ["starts from itself"]),
        (["mine/sweep.yaml"], ["mine/sweep.yaml is a sweep", "fedlit sweep run mine/sweep.yaml"]),
        (["mine/part.yaml"], ["method.name=fedit (mine/part.yaml)", "write method=fedit"]),
        (["mine/template.yaml"], ["data.template=", "(mine/template.yaml) does nothing beside data.prompt=q"]),
        (["data.prompt=q", "data.template={q}?"], ["data.template={q}? (command line)", "data.prompt=null"]),
        (["mine/prompt.yaml", "data.template={q}?"], ["(command line) does nothing", "(mine/prompt.yaml)"]),
        (["data=mine/prompted.yaml", "data.template={q}?"], ["(mine/prompted.yaml)"]),
    ],
)
def test_mistakes_are_one_line_that_names_the_file(
    here: Path, config_dir: Path, words: list[str], parts: list[str]
) -> None:
    write(here, "mine/my.yaml", "num_rounds: 1\n")
    write(here, "mine/typo.yaml", "local: {stepz: 3}\n")
    write(here, "mine/type.yaml", "num_rounds: many\n")
    write(here, "mine/range.yaml", "num_rounds: -1\n")
    write(here, "mine/pick.yaml", "data: qestions\n")
    write(here, "mine/gone.yaml", "data: rows.yaml\n")
    write(here, "mine/list.yaml", "- 1\n")
    write(here, "mine/bad.yaml", "seed: 1\n\tnum_rounds: 2\n")
    write(here, "mine/loop.yaml", "experiment: loop2.yaml\n")
    write(here, "mine/loop2.yaml", "experiment: loop.yaml\n")
    write(here, "mine/sweep.yaml", "axes: {seed: [0, 1]}\n")
    write(here, "mine/part.yaml", "method: {name: fedit}\n")
    write(here, "mine/template.yaml", "data: {prompt: q, template: '{q}?'}\n")
    write(here, "mine/prompt.yaml", "data.prompt: q\n")
    write(here, "mine/prompted.yaml", "name: x\nprompt: q\n")
    write(here, "stored/config.yaml", "seed: 1\n")
    write(here, "folder.yaml/config.yaml", "seed: 1\n")
    message = error(words, config_dir)
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("value", ["!!int [1]", "!!float {b: 1}", "!!bool [x]", "!!int\n  b: 1"])
def test_a_tag_of_a_plain_value_before_a_list_is_one_line(here: Path, config_dir: Path, value: str) -> None:
    name = write(here, "my.yaml", f"seed: {value}\n")
    assert "expected a scalar node" in error([name], config_dir)


def test_a_template_below_a_prompt_gives_way(here: Path, config_dir: Path) -> None:
    write(here, "data.yaml", "name: x\ntemplate: '{a}'\n")
    assert load_config(["data=data.yaml", "data.prompt=q"], config_dir).data.prompt == "q"
    write(here, "prompted.yaml", "name: x\nprompt: q\n")
    config = load_config(["data=prompted.yaml", "data.template={a}", "data.prompt=null"], config_dir)
    assert (config.data.template, config.data.prompt) == ("{a}", None)


def stored(here: Path, config_dir: Path, *words: str) -> tuple[str, RunConfig]:
    """Return the path of the whole configuration of a run, as a run writes it, and the configuration."""
    config = load_config(words, config_dir)
    return write(here, "runs/x/config.yaml", to_yaml(config)), config


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["experiment=both", "local.lr=1e-5"],
        ["method=nested", "method.anything={a: [1]}", "method.ranks=[2, 2, 4]"],
        ["data.prompt=q", "data.label=null", "local.epochs=2"],
        ["method.lora_rank=[4, 2, 8]", "method.target_modules=[q_proj]"],
        [
            "method=nested",
            "method.galore.rank=4",
            "run.name=first",
            "run.dir=elsewhere",
            'data.template="a\\n{b} ${c}$"',
        ],
    ],
)
def test_a_run_s_configuration_is_a_configuration(here: Path, config_dir: Path, words: list[str]) -> None:
    path, config = stored(here, config_dir, *words)
    assert load_yaml(to_yaml(config)) == config
    assert load_config([path], config_dir) == config
    again = load_config([path, "run.name=again"], config_dir)
    config.run.name = "again"
    assert again == config


def test_a_whole_configuration_is_read_without_the_files_it_was_made_of(here: Path, config_dir: Path) -> None:
    path, config = stored(here, config_dir, "experiment=both", "seed=2")
    for name in ("experiment/both.yaml", "data/questions.yaml", "data/pydoc.yaml", "model/tiny.yaml"):
        (config_dir / name).unlink()
    (config_dir / "method/nested.yaml").write_text("name: nested\nlora_rank: 99\n", encoding="utf-8")
    assert load_config([path], config_dir) == config


def test_what_lies_above_a_whole_configuration(here: Path, config_dir: Path) -> None:
    path, config = stored(here, config_dir, "experiment=both", "method.ranks=[2, 3]")
    above = write(here, "above.yaml", "num_rounds: 2\nmethod.flag: true\n")
    changed = load_config([path, above, "method.ranks=[5]", "method.galore.scale=1"], config_dir)
    assert (changed.num_rounds, changed.seed, changed.data) == (2, config.seed, config.data)
    assert changed.method.options["flag"] is True
    assert changed.method.options["ranks"] == [5]
    # A group that is picked takes the place of its section.
    replaced = load_config([path, "method=fedit"], config_dir)
    assert replaced.method == load_config([], config_dir).method
    assert (replaced.data, replaced.local) == (config.data, config.local)
    assert load_config([path, "data=pydoc"], config_dir).data == load_config([], config_dir).data


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ["runs/x/config.yaml", "experiment=both"],
            ["runs/x/config.yaml is the whole", "configs/experiment/both.yaml"],
        ),
        (["above.yaml", "runs/x/config.yaml"], ["nothing of above.yaml counts", "give it first"]),
        (["runs/x/config.yaml", "method.name=nested"], ["method.name=nested (command line)", "write method=nested"]),
        (["runs/x/config.yaml", "method.lora_rnk=2"], ["'method.lora_rnk'", "'method.lora_rank'"]),
        (["runs/x/config.yaml", "method.lora_rank=x"], ["method.lora_rank=x (command line)", "integer"]),
        (["runs/x/config.yaml", "data.prompt=q", "data.template={q}"], ["does nothing beside data.prompt=q"]),
        (["old.yaml"], ["old.yaml is the configuration of a run but lacks sections", "server: {}"]),
        (["damaged.yaml"], ["'local.stepz' (damaged.yaml)", "'local.steps'"]),
        (["option.yaml"], ["unknown key 'method.top-k' (option.yaml)"]),
    ],
)
def test_mistakes_with_a_whole_configuration(here: Path, config_dir: Path, words: list[str], parts: list[str]) -> None:
    _, config = stored(here, config_dir)
    content = nested_values(config)
    write(here, "above.yaml", "num_rounds: 2\n")
    write(here, "old.yaml", dump_yaml({key: value for key, value in content.items() if key != "server"}))
    write(here, "damaged.yaml", dump_yaml({**content, "local": {"stepz": 1}}))
    write(here, "option.yaml", dump_yaml({**content, "method": {**content["method"], "top-k": 1}}))
    message = error(words, config_dir)
    assert [part for part in parts if part not in message] == [], message


def test_a_template_above_a_stored_prompt_is_refused(here: Path, config_dir: Path) -> None:
    path, _ = stored(here, config_dir, "data.prompt=q")
    assert "does nothing beside data.prompt=q (runs/x/config.yaml)" in error([path, "data.template={q}"], config_dir)


def test_every_section_is_known() -> None:
    assert {"data", "model", "method", "local", "run", "compute", "logging"} < SECTIONS
    assert nested_values(RunConfig()).keys() > SECTIONS

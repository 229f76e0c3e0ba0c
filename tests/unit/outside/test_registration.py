"""What a part from outside must be: each mistake is one line that names file and part."""

import dataclasses

import pytest
from written_modules import RULE, WriteModule

from fedlit.config import load_config
from fedlit.config.keys import METHOD_FIELDS, SCHEMA
from fedlit.config.topics import help_on
from fedlit.errors import UserError
from fedlit.outside.kinds import KINDS, RESERVED
from fedlit.outside.loading import load_plugins
from fedlit.outside.record import require_named
from fedlit.recipes import RECIPES, TABLES
from fedlit.registry import Recipe, build_part, register, registered
from fedlit.round.availability.parts import AVAILABILITIES
from fedlit.round.plan import SAMPLINGS
from fedlit.scores import _OWN as OWN_SCORES
from fedlit.tasks.registry import _SPECS as OWN_TASKS

WITHOUT_CALL = RULE.replace("__call__", "call")
MISTAKES = {
    "no method": (WITHOUT_CALL, "register: rule mine (bad.py:{5}) lacks __call__, which every rule must offer"),
    "no attribute": (
        '@register("score", "mine")\n@dataclass\nclass Mine(TaskScore):\n    def metric(self): ...\n',
        "register: score mine (bad.py:{4}) lacks tasks, which every score must offer",
    ),
    "no class of the kind": (
        '@register("rule", "mine")\n@dataclass\nclass Mine:\n    def __call__(self, cohort, server): ...\n',
        "lacks local_parts, which every rule must offer; write it, in a class below fedlit.plugins.AggregationRule",
    ),
    "no dataclass": (
        '@register("logger", "mine")\nclass Mine(Callback): ...\n',
        "logger mine (bad.py:{4}) is no datacl",
    ),
    "decorators the other way round": (
        '@dataclass\n@register("rule", "mine")\nclass Mine(FedAvg):\n    name: str = "x"\n',
        "make it one: @dataclass over the class, below @register",
    ),
    "one name twice": (
        RULE + RULE.replace("class Mine", "class Other"),
        "register: rule mine (bad.py:{12}) is registered already by bad.py:{5}; choose another name",
    ),
    "a name of the package": (
        RULE.replace('"mine"', '"fedavg"'),
        "register: rule fedavg (bad.py:{5}) has the name of one of the package's own",
    ),
    "no such kind": (
        RULE.replace('"rule"', '"rules"'),
        "register: 'rules' is no kind of part (bad.py:{5}); did you mean rule? Valid: recipe, adapter",
    ),
    "a name with a space": (RULE.replace('"mine"', '"my rule"'), "'my rule' (bad.py:{5}) cannot name a rule"),
    "a name with a sign": (RULE.replace('"mine"', '"a=b"'), "'a=b' (bad.py:{5}) cannot name a rule"),
    "a name that is a truth value": (RULE.replace('"mine"', '"true"'), "'true' (bad.py:{5}) cannot name a rule"),
    "a number": (RULE.replace('"mine"', "7"), "7 (bad.py:{5}) cannot name a rule"),
    "an option of no plain type": (
        RULE.replace('trim: int = option(1, "clients left out", range=COUNT)', "f: type | None = None"),
        "register: rule mine (bad.py:{5}): its option f has the type type | None, which no configuration can hold",
    ),
    "a default of no plain type": (
        RULE.replace('trim: int = option(1, "clients left out", range=COUNT)', "f: Any = int"),
        "its option f has the type Any, which no configuration can hold",
    ),
    "an option that every method has": (
        RULE.replace("trim: int", "pooled: int"),
        "its option pooled is a key that every method has; call it something else",
    ),
    "an option that is filled from elsewhere": (
        RULE.replace("trim: int", "momentum: float"),
        "the field momentum is filled from local.momentum and cannot be an option; give the option another name",
    ),
    "a class for a recipe": (
        'register("recipe", "mine", Recipe)\n',
        "recipe mine (bad.py:{4}) is the class Recipe; give",
    ),
    "a class for a task": (
        'register("task", "mine", TaskSpec)\n',
        "task mine (bad.py:{4}) is the class TaskSpec; give",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_file_and_part(write_module: WriteModule, mistake: str) -> None:
    text, told = MISTAKES[mistake]
    write_module("bad", text)
    with pytest.raises(UserError) as caught:
        load_plugins(["bad"])
    for number in (4, 5, 12):
        told = told.replace(f"{{{number}}}", str(number))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "mine" not in registered("rule"), "a module that fails leaves nothing behind"


def test_both_forms_of_register_are_one(write_module: WriteModule) -> None:
    write_module("good", RULE + 'other = register("rule", "other", Mine)\nassert other is Mine\n')
    load_plugins(["good"])
    assert registered("rule")["mine"] is registered("rule")["other"]
    assert build_part("rule", "mine", {"trim": 3, "others": 1}).trim == 3


def test_what_is_a_part_today_stays_one(write_module: WriteModule) -> None:
    """A class without fields of its own below a dataclass, and fields of every type that YAML has."""
    text = """
class Plain(FedAvg): ...
register("rule", "plain", Plain)
@dataclass(frozen=True)
class Inner:
    a: int = 1
@dataclass(frozen=True)
class Many(FedAvg):
    a: "int | None" = None
    b: list[str] = field(default_factory=list)
    c: tuple[int, ...] = (1, 2)
    d: dict[str, Any] = field(default_factory=dict)
    e: Inner = Inner()
    f: Any = None
    g: object = field(default=None, init=False)
register("rule", "many", Many)
"""
    write_module("good", text)
    load_plugins(["good"])
    assert build_part("rule", "many", {"e": {"a": 3}, "c": [4]}).e.a == 3


def test_the_names_of_the_package_are_known_without_torch() -> None:
    own = {kind: set(wanted.own) for kind, wanted in KINDS.items()}
    assert own == {
        "recipe": set(RECIPES),
        **{kind: set(table) for kind, table in TABLES.items()},
        "sampling": set(SAMPLINGS),
        "availability": set(AVAILABILITIES),
        "task": set(OWN_TASKS),
        "reader": set(SCHEMA["data.source"].valid),
        "partition": set(SCHEMA["partition.name"].valid),
        "score": set(OWN_SCORES),
        "logger": set(SCHEMA["logging.loggers"].valid),
    }
    assert METHOD_FIELDS | {"options", "weighting"} == RESERVED


# --- recipes


def test_a_recipe_needs_no_file(write_module: WriteModule) -> None:
    write_module(
        "mine", RULE + 'register("recipe", "trimmed", Recipe(adapter="lora", rule="mine", defaults={"trim": 2}))'
    )
    config = load_config(["plugins=[mine]", "method=trimmed", "method.lora_rank=4"])
    assert config.method.name == "trimmed"
    assert (config.method.options["trim"], config.method.options["lora_rank"]) == (2, 4)
    assert load_config(["plugins=[mine]", "method=trimmed", "method.trim=3"]).method.options["trim"] == 3
    with pytest.raises(UserError, match=r"method\.trim=x .* has the wrong type"):
        load_config(["plugins=[mine]", "method=trimmed", "method.trim=x"])


def test_a_recipe_tells_its_line_of_help(write_module: WriteModule) -> None:
    write_module("told", 'register("recipe", "told", Recipe(adapter="lora", help="LoRA told of"))')
    assert help_on(["plugins=[told]", "method=told"]).startswith("  method=told: LoRA told of (from outside, ")
    with pytest.raises(UserError, match=r"plugins=told \(command line\) has the wrong type"):
        help_on(["plugins=told"])


def test_a_recipe_of_unknown_parts_is_told(write_module: WriteModule) -> None:
    write_module("mine", RULE + 'register("recipe", "trimmed", Recipe(adapter="lora", rule="mime"))')
    with pytest.raises(UserError) as caught:
        load_config(["plugins=[mine]", "method=trimmed"])
    assert "the recipe trimmed (mine.py:11) names the rule mime, which is not known; did you mean mine?" in str(
        caught.value
    )


def test_an_unknown_method_is_told_as_before(write_module: WriteModule) -> None:
    with pytest.raises(UserError, match=r"unknown choice method=fedit2 \(command line\); did you mean 'fedit'\?"):
        load_config(["method=fedit2"])


# --- a registration that nobody else would find


def test_a_part_that_no_import_registered_is_refused(write_module: WriteModule) -> None:
    register("recipe", "mine", Recipe(adapter="lora"))
    config = load_config(["method=mine"])
    with pytest.raises(UserError) as caught:
        require_named(config)
    assert "method.name=mine (" in str(caught.value)
    assert "test_registration.py" in str(caught.value)
    assert "was not registered by the import of a module" in str(caught.value)


def test_a_part_of_a_module_that_nobody_names_is_refused(write_module: WriteModule) -> None:
    write_module("mine", RULE)
    write_module("whole", "import mine")
    load_plugins(["whole"])  # of a run before, in this process
    with pytest.raises(UserError) as caught:
        require_named(load_config(["method.rule=mine"]))
    assert "comes from the module mine, which plugins=[] does not name; give plugins=[whole]" in str(caught.value)
    require_named(load_config(["method.rule=mine", "plugins=[whole]"]))
    require_named(load_config(["method.rule=mine", "plugins=[mine]"]))


def test_fields_of_recipes_are_what_the_table_says() -> None:
    assert {entry.name for entry in dataclasses.fields(Recipe)} == set(KINDS["recipe"].needs)

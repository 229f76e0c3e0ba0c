"""Options of methods: ranks per client, numbers that null turns off, options borrowed from other recipes."""

import pytest

from fedlit.config import load_config, load_yaml, to_yaml
from fedlit.errors import UserError


def test_a_rank_may_be_a_list_with_one_for_each_client() -> None:
    config = load_config(["method=flexlora", "method.lora_rank=[2,4,8]", "num_clients=3"])
    assert config.method.options["lora_rank"] == [2, 4, 8]
    assert load_yaml(to_yaml(config)) == config


@pytest.mark.parametrize("value", ["[2,4]", "[2,4,8.5]", "[2,4,0]", "[]", "8.5", "true", "[true,2,3]", "many"])
def test_other_ranks_are_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"method\.lora_rank=") as raised:
        load_config(["method=flexlora", f"method.lora_rank={value}", "num_clients=3"])
    assert "\n" not in str(raised.value)


def test_null_turns_galore_s_projection_off() -> None:
    config = load_config(["method=fedftg", "method.galore.rank=null"])
    assert config.method.options["galore"]["rank"] is None
    assert load_yaml(to_yaml(config)) == config
    with pytest.raises(UserError, match=r"method\.galore\.rank=4\.5"):
        load_config(["method=fedftg", "method.galore.rank=4.5"])


def test_a_recipe_may_borrow_another_s_options_when_they_are_given() -> None:
    plain = load_config(["method=full"])
    assert "galore" not in plain.method.options
    borrowed = load_config(["method=full", "method.optimizer=galore", "method.galore.rank=4"])
    assert borrowed.method.options["galore"]["rank"] == 4
    assert borrowed.method.options["galore"]["proj_type"] == "std"
    assert load_yaml(to_yaml(borrowed)) == borrowed


def test_an_option_of_no_recipe_is_unknown() -> None:
    with pytest.raises(UserError, match=r"unknown key 'method\.lora_rang'"):
        load_config(["method=full", "method.lora_rang=4"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["server.optimizer=fedadam"], "server.lr=null"),
        (["local.scaffold=true", "method.optimizer=sgd", "local.weight_decay=0.1"], "local.weight_decay=0.1"),
        (["local.scaffold=true", "method.optimizer=sgd", "local.max_grad_norm=1"], "local.max_grad_norm=1"),
        (["local.prox_mu=-1"], "local.prox_mu=-1"),
        (["server.optimizer=adam"], "server.optimizer=adam"),
        (["run.export=full"], "run.export=full"),
    ],
)
def test_what_does_not_go_together_is_told(given: list[str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        load_config(["method=fedit", *given])
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)

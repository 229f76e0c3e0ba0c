"""Live tensors are looked for once, and are the model's own whatever happens to it in between."""

from torch import Tensor, nn

from fedlit.client.host import LiveTensors


def linear() -> nn.Linear:
    return nn.Linear(2, 2, bias=False)


def test_whole_parameters_are_looked_for_once_and_stay_live() -> None:
    model, asked = linear(), []

    def find(model: nn.Module) -> dict[str, Tensor]:
        asked.append(1)
        return {"weight": model.weight.data}  # type: ignore[dict-item]

    live = LiveTensors(model, find)
    for _ in range(3):
        live()["weight"].fill_(7.0)
        assert model.weight.eq(7.0).all()
        model.weight.data = model.weight.data.double().zero_()  # as a move to another device does
    assert live()["weight"].data_ptr() == model.weight.data_ptr()
    assert len(asked) == 1


def test_a_part_of_a_parameter_and_a_tensor_of_its_own_are_asked_for_each_time() -> None:
    model = linear()
    model.register_buffer("scale", model.weight.data.new_ones(2))
    for name, part in (("weight", lambda: model.weight.data[:1]), ("scale", lambda: model.scale)):
        live = LiveTensors(model, lambda _, name=name, part=part: {name: part()})  # type: ignore[misc]
        first = live()[name]
        model.weight.data, model.scale = model.weight.data.clone(), model.scale.clone()  # type: ignore[operator]
        assert live()[name].data_ptr() != first.data_ptr()


def test_a_transposed_parameter_is_not_the_parameter() -> None:
    model = linear()
    live = LiveTensors(model, lambda model: {"weight": model.weight.data.T})  # type: ignore[operator,union-attr]
    model.weight.data = model.weight.data.new_tensor([[1.0, 2.0], [3.0, 4.0]])
    assert live()["weight"].tolist() == [[1.0, 3.0], [2.0, 4.0]]

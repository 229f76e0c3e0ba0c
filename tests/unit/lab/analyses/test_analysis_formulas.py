"""Every formula of an analysis against a plain evaluation of what its docstring says, in float64."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from fedlit.lab.analyses.communication import MODELS, PUBLISHED, Rule, nearest_rule, ratios, rules_for, sent_bytes
from fedlit.lab.analyses.excess_risk import gap_of
from fedlit.lab.analyses.fairness import inequality
from fedlit.lab.analyses.generalisation import bound, row_entropy
from fedlit.lab.analyses.initialisation import NUM_DRAWS, input_moments, products, shares, widths
from fedlit.lab.analyses.memory import GALORE_RANK, paper_memory
from fedlit.lab.analyses.paper_models import GEMMA_2B, GPT2, ROBERTA_BASE, ROBERTA_LARGE, TINYLLAMA, PaperModel
from fedlit.statistics.fitting import fit_polynomial, rank_correlation


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_fit_is_numpys_with_its_covariance(degree: int) -> None:
    rng = np.random.default_rng(degree)
    x = np.sort(rng.uniform(1, 300, size=12))
    y = rng.normal(size=12) + 0.01 * x**2
    found = fit_polynomial(x.tolist(), y.tolist(), degree)
    coefficients, covariance = np.polyfit(x, y, degree, cov=True)
    assert found.coefficients == pytest.approx(coefficients[::-1], rel=1e-8)
    assert found.errors == pytest.approx(np.sqrt(np.diag(covariance))[::-1], rel=1e-6)
    residuals = y - np.polyval(coefficients, x)
    assert found.residual == pytest.approx(math.sqrt((residuals**2).sum() / (12 - degree - 1)))
    num = degree + 2  # the variance of the residuals is estimated too
    likelihood = stats.norm.logpdf(residuals, scale=math.sqrt((residuals**2).mean())).sum()
    constant = 12 * (math.log(2 * math.pi) + 1)
    assert found.aicc + constant == pytest.approx(2 * num - 2 * likelihood + 2 * num * (num + 1) / (12 - num - 1))


def test_a_fit_without_a_spare_point_has_no_error() -> None:
    found = fit_polynomial([1, 2, 4], [3, 5, 0], 2)
    assert np.polynomial.Polynomial(found.coefficients)(np.array([1, 2, 4])) == pytest.approx([3, 5, 0])
    assert all(map(math.isnan, (*found.errors, found.residual, found.aicc)))


def test_rank_correlation_is_of_ranks() -> None:
    assert rank_correlation([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 1, 2]) == pytest.approx(1 - 6 * (9 + 1 + 4 + 4) / (4 * 15))
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 2, 3], [5, 5, 5]) is None


def test_a_gap_is_above_the_least() -> None:
    assert gap_of({1: 3.0, 2: 2.5, 5: 2.75}) == {1: 0.5, 2: 0.0, 5: 0.25}


def hugging_face_model(name: str) -> nn.Module:
    """Return a model of a paper on the meta device, from a configuration written out here."""
    import transformers as hf  # noqa: PLC0415

    big = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    llama = {"vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22}
    gemma = {"vocab_size": 256000, "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256}
    with torch.device("meta"):
        if name == "RoBERTa-base":
            return hf.RobertaForSequenceClassification(hf.RobertaConfig(**big))
        if name == "RoBERTa-large":
            return hf.RobertaForSequenceClassification(hf.RobertaConfig(**big, **large))
        if name == "GPT-2":
            return hf.GPT2LMHeadModel(hf.GPT2Config())
        if name == "TinyLlama-1.1B":
            config = hf.LlamaConfig(**llama, num_attention_heads=32, num_key_value_heads=4)
            return hf.LlamaForCausalLM(config)
        return hf.GemmaForCausalLM(hf.GemmaConfig(**gemma, **heads))


@pytest.mark.parametrize(
    "paper", [ROBERTA_BASE, ROBERTA_LARGE, GPT2, TINYLLAMA, GEMMA_2B], ids=lambda paper: paper.name
)
def test_the_papers_models_have_the_parameters_of_the_real_ones(paper: PaperModel) -> None:
    model = hugging_face_model(paper.name)
    assert sum(each.numel() for each in model.parameters()) == paper.total + paper.head
    shapes = [tuple(each.shape) for each in model.parameters() if each.ndim == 2]
    for layer in (paper.up, *(layer for layers in paper.targets.values() for layer in layers)):
        stored = tuple(layer) if paper.name != "GPT-2" else tuple(layer)[::-1]  # Conv1D has (in, out)
        assert shapes.count(stored) >= paper.blocks


def naive_bytes(model: PaperModel, rule: Rule, method: str) -> int:
    """Return a client's bytes by sending every tensor of every round."""
    total = 0
    if rule.model_once:
        total += rule.model_bytes * (model.total + model.head)
    for _ in range(5):
        for direction in ("up", "down"):
            if method == "full":
                total += rule.model_bytes * (model.total + model.head)
                continue
            for _ in range(model.blocks):
                for layer in model.targets[rule.targets]:
                    total += rule.adapter_bytes * np.empty((layer.num_out, 4)).size
                    if method != "ffa_lora":
                        total += rule.adapter_bytes * np.empty((4, layer.num_in)).size
                    if method == "fedex_lora" and direction == "down":
                        rank = 4 * rule.residual
                        total += rule.adapter_bytes * rank * (layer.num_out + layer.num_in)
            if rule.head:
                total += rule.adapter_bytes * model.head
    return total


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_bytes_are_those_of_every_tensor_that_is_sent(model: PaperModel) -> None:
    for rule in rules_for(model):
        for method in ("full", "fedex_lora", "fedit", "ffa_lora"):
            assert sent_bytes(model, rule, method) == naive_bytes(model, rule, method)


def test_table_6_comes_near_for_two_of_three_models() -> None:
    large = ratios(ROBERTA_LARGE, nearest_rule(ROBERTA_LARGE))
    assert {name: round(value, 3) for name, value in large.items()} == {
        "full": 10.404,
        "fedit": 0.984,
        "ffa_lora": 0.979,
    }
    gpt2 = ratios(GPT2, nearest_rule(GPT2))
    assert {name: round(value, 3) for name, value in gpt2.items()} == {"full": 9.459, "fedit": 0.916, "ffa_lora": 0.885}
    base = ratios(ROBERTA_BASE, nearest_rule(ROBERTA_BASE))
    assert abs(base["full"] / PUBLISHED["RoBERTa-base"]["full"] - 1) > 0.2


def test_row_entropy_is_scipys() -> None:
    weight = torch.from_numpy(np.random.default_rng(1).normal(scale=3, size=(5, 7)))
    expected = sum(stats.entropy(np.exp(row)) for row in weight.numpy())
    assert row_entropy(weight) == pytest.approx(expected, rel=1e-12)
    assert row_entropy(torch.zeros(5, 7)) == pytest.approx(5 * math.log(7), rel=1e-12)
    assert row_entropy(weight.bfloat16()) == pytest.approx(row_entropy(weight.bfloat16().double()), rel=1e-12)


def test_the_bound_is_a_mean_over_clients() -> None:
    sigma, rows, rank, bits, heights = 0.7, [10, 40, 1000], 8, 32, [64, 32, 32]
    expected = 0.0
    for number in rows:  # expression (7), term by term
        expected += math.sqrt(2 * sigma**2 * math.log(2) / number * rank * bits * sum(heights)) / 3
    assert bound(sigma, rows, math.log(2) * rank * bits * sum(heights)) == pytest.approx(expected, rel=1e-12)


def test_inequality() -> None:
    values = [3.0, 2.0, 2.5, 4.0]
    found = inequality(values, lower_is_better=True)
    assert (found.worst, found.disparity) == (4.0, 2.0)
    assert found.spread == pytest.approx(np.std(values))
    assert inequality(values, lower_is_better=False).worst == 2.0


def test_shares_of_function_are_those_of_the_tokens() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(9, 4).double().requires_grad_(False)
    tokens = [torch.randn(3, 5, 9, dtype=torch.float64) for _ in range(2)]
    moments, loss = input_moments({"down": layer}, lambda: (layer(each).square().mean() for each in tokens))
    assert loss == pytest.approx(sum(float(layer(each).square().mean()) for each in tokens) / 2)
    x = torch.cat(tokens).reshape(-1, 9)
    product = layer.weight + 0.3 * torch.randn(4, 9, dtype=torch.float64)
    weights, function = shares(layer.weight, product, moments["down"])
    lost = layer.weight - product
    assert weights == pytest.approx(1 - float((lost**2).sum() / (layer.weight**2).sum()), rel=1e-12)
    assert function == pytest.approx(
        1 - float(((x @ lost.T) ** 2).sum() / ((x @ layer.weight.T) ** 2).sum()), rel=1e-10
    )


def test_whitened_keeps_most_function_and_svd_most_weights() -> None:
    torch.manual_seed(1)
    weight = torch.randn(6, 20, dtype=torch.float64)
    x = torch.randn(300, 20, dtype=torch.float64) * torch.linspace(0.1, 4, 20)
    moment = x.T @ x
    kept = {
        init: np.mean([shares(weight, product, moment) for product in products(weight, moment, init, 3)], axis=0)
        for init in ("gaussian", "svd", "whitened")
    }
    values = torch.linalg.svdvals(weight)
    assert kept["svd"][0] == pytest.approx(float((values[:3] ** 2).sum() / (values**2).sum()), rel=1e-10)
    outputs = torch.linalg.svdvals(x @ weight.T)
    assert kept["whitened"][1] == pytest.approx(float((outputs[:3] ** 2).sum() / (outputs**2).sum()), rel=1e-10)
    assert kept["gaussian"][0] < kept["svd"][0] and kept["svd"][1] < kept["whitened"][1]
    assert len(list(products(weight, moment, "gaussian", 3))) == NUM_DRAWS


def test_a_gaussian_start_keeps_about_d_of_m() -> None:
    torch.manual_seed(2)
    weight = torch.randn(64, 176, dtype=torch.float64)
    kept = [
        shares(weight, each, torch.eye(176, dtype=torch.float64)) for each in products(weight, weight, "gaussian", 44)
    ]
    assert np.mean(kept, axis=0) == pytest.approx([0.25, 0.25], abs=0.02)


def test_widths_reach_from_one_to_all() -> None:
    assert widths(172)[0] == 1 and widths(172)[-1] == 172 and len(widths(172)) == 9
    assert widths(3) == [1, 2, 3]


@pytest.mark.parametrize("model", [TINYLLAMA, GEMMA_2B], ids=lambda model: model.name)
def test_memory_of_the_papers_models(model: PaperModel) -> None:
    real = hugging_face_model(model.name)
    up = [each for name, each in real.named_parameters() if name.endswith("up_proj.weight")]
    found = paper_memory(model, "fedftg", num_tokens=10)
    assert found["weights"] == 4 * sum(each.numel() for each in real.parameters())
    assert found["gradients"] == 4 * sum(each.numel() for each in up)
    moments = 0
    for each in up:  # rows of a tall gradient stay, its columns are projected
        rows, columns = each.shape
        assert rows >= columns
        moments += 2 * rows * GALORE_RANK + GALORE_RANK * columns
    assert found["optimizer"] == 4 * moments
    assert paper_memory(model, "fedftg, AdamW")["optimizer"] == 2 * found["gradients"]
    adapter = paper_memory(model, "LoRA")["gradients"] / 4
    assert adapter == {"TinyLlama-1.1B": 1_531_904, "Gemma-2B": 1_253_376}[model.name]

"""A conversation is the tokens of its chat template, and the assistant's words with what ends them are learned."""

import json
from typing import Any

import pytest
import torch
from chat_templates import TEMPLATES, TURN_ENDS, chat_tokenizer, template
from transformers import AutoModelForCausalLM

from fedlit.config import DataConfig, EvalConfig
from fedlit.data.collation import collate
from fedlit.errors import UserError
from fedlit.models import PACKAGED
from fedlit.tasks.causal_lm.chat_tokens import ChatTokens
from fedlit.tasks.causal_lm.task import CausalLM

Messages = list[dict[str, Any]]


def say(*contents: str, system: str | None = None) -> Messages:
    """Return turns of user and assistant in turn."""
    turns = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return [*([{"role": "system", "content": system}] if system else []), *turns]


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {}}}
WITH_TOOLS: Messages = [
    *say("What is 1 + 1?"),
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "name": "add", "content": "2"},
    {"role": "assistant", "content": "It is 2."},
]
TURNS = {
    "one": say("def read(file)", "Return what is in it."),
    "three": say("Hello é", " Yes.\n", "More", "No\n\n漢字 x", "    And?", "    indented\n"),
    "repeated": say("Yes", "Yes", "Yes", "Yes"),
    "odd": say("a</s>b<s>", "<|im_end|> is a token", "x", "\n\nafter two line breaks"),
}
MORE = {
    "system": say("Who?", "Me.", "Why?", "Because.", system="Be brief."),
    "tools": WITH_TOOLS,
    "two users": [*say("One."), *say("Two.", "Three.")],
    "answers in a row": [*say("One.", "Two."), {"role": "assistant", "content": "And three."}],
}
CASES = [(name, case) for name in TEMPLATES for case in TURNS] + [
    (name, case) for name in ("llama", "chatml") for case in MORE
]
DATA = DataConfig(messages="messages")


def make_chat(tokenizer: Any, longest: int = 400, data: DataConfig = DATA, **evaluation: Any) -> CausalLM:
    return CausalLM(
        tokenizer=tokenizer,
        data=data,
        eval=EvalConfig(**evaluation),
        max_length_tokens=longest,
        loss_on="response",
        max_positions=512,
    )


def learned_ids(tokenizer: Any, example: Any) -> list[str]:
    """Return the texts of the learned runs."""
    return [tokenizer.decode(example.token_ids[start:stop]) for start, stop in example.learned]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_tokens_and_mask_are_those_of_the_library(name: str, case: str) -> None:
    """Of a template with marks by the library itself, and of the same without them by its beginnings."""
    messages, tools = (TURNS | MORE)[case], [TOOL] if case == "tools" else None
    plain, marked = chat_tokenizer(name), chat_tokenizer(name, marked=True)
    expected = marked.apply_chat_template(
        messages, tools=tools, return_dict=True, return_assistant_tokens_mask=True, tokenize=True
    )
    row = {"messages": messages, **({"tools": tools} if tools else {})}
    for tokenizer in (plain, marked):
        assert tokenizer.apply_chat_template(messages, tools=tools)["input_ids"] == expected["input_ids"]
        (example,) = make_chat(tokenizer).encode([row])
        assert list(example.token_ids) == expected["input_ids"]
        mask = [0] * len(example.token_ids)
        for start, stop in example.learned:
            mask[start:stop] = [1] * (stop - start)
        assert mask == expected["assistant_masks"]
    assert sum(mask) > 0


@pytest.mark.parametrize("name", TEMPLATES)
def test_one_token_begins_the_text_and_one_ends_every_turn(name: str) -> None:
    """A tokenizer that adds its beginning by itself would put it before the template's."""
    tokenizer = chat_tokenizer(name)
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    task = make_chat(tokenizer)
    (example,) = task.encode([{"messages": TURNS["three"]}])
    (tested,) = task.evaluation_examples([{"messages": TURNS["three"]}])
    wanted = 0 if name == "chatml" else 1
    for tokens in (example.token_ids, tested.token_ids, tested.prompt_ids):
        assert tokens.count(tokenizer.bos_token_id) == wanted
        assert list(tokens[:wanted]) == [tokenizer.bos_token_id] * wanted
    end = tokenizer.convert_tokens_to_ids(TURN_ENDS[name])
    assert [example.token_ids[stop - 1] for _, stop in example.learned] == [end] * 3
    assert set(task.encoder.end_ids) == {tokenizer.eos_token_id, end}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("case", TURNS)
def test_the_last_answer_is_asked_for_as_the_library_does(name: str, case: str) -> None:
    """The tokens whose loss is measured are those of the last answer in training."""
    messages, tokenizer = TURNS[case], chat_tokenizer(name)
    task = make_chat(tokenizer)
    (tested,) = task.evaluation_examples([{"messages": messages}])
    (trained,) = task.encode([{"messages": messages}])
    asked = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True)["input_ids"]
    assert list(tested.prompt_ids) == asked
    start, stop = trained.learned[-1]
    answer = tested.token_ids[tested.num_prompt_tokens :]
    joined = tokenizer.decode(trained.token_ids[:start]) != tokenizer.decode(tested.prompt_ids)
    assert joined == (name == "chatml" and case in ("three", "odd"))  # its first letters and a line break are one token
    assert joined or answer == trained.token_ids[start:stop]
    assert tokenizer.decode(tested.token_ids) == tokenizer.decode(trained.token_ids[:stop])
    assert tested.response == messages[-1]["content"]
    assert tested.prompt == tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)


def test_an_answer_that_calls_tools_is_compared_as_the_template_writes_it() -> None:
    task = make_chat(chat_tokenizer("chatml"))
    (example,) = task.evaluation_examples([{"messages": WITH_TOOLS[:2], "tools": [TOOL]}])
    assert example.response == f"<tool_call>{json.dumps(CALL)}</tool_call>"
    assert json.dumps([TOOL]) in example.prompt


def test_only_a_completion_is_learned_and_no_turn_of_weight_0() -> None:
    tokenizer, both = chat_tokenizer("chatml"), DataConfig(messages=["prompt", "completion"])
    row = {"prompt": TURNS["three"][:3], "completion": TURNS["three"][3:]}
    weighted: Messages = [dict(message) for message in TURNS["repeated"]]
    weighted[1]["weight"] = 0
    for reader in (tokenizer, chat_tokenizer("chatml", marked=True)):
        (example,) = make_chat(reader, data=both).encode([row])
        assert learned_ids(reader, example) == ["No\n\n漢字 x<|im_end|>", "\n    indented\n<|im_end|>"]
        (example,) = make_chat(reader).encode([{"messages": weighted}])
        assert len(example.learned) == 1
        assert example.learned[0][0] > len(example.token_ids) // 2


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("longest", [2, 9, 20, 40, 60])
def test_a_long_row_loses_its_start_then_the_end_of_its_answer(name: str, longest: int) -> None:
    tokenizer = chat_tokenizer(name)
    messages = say("one two three", "four five six", "seven eight nine", "ten eleven twelve " * 4)
    (whole,) = make_chat(tokenizer).encode([{"messages": messages}])
    (example,) = make_chat(tokenizer, longest).encode([{"messages": messages}])
    assert (whole.truncated, example.truncated) == (False, len(whole.token_ids) > longest)
    assert len(example.token_ids) == min(longest, len(whole.token_ids))
    start, stop = whole.learned[-1]
    kept = example.learned[-1]
    assert kept[1] - kept[0] == min(stop - start, max(longest - start, longest // 2))
    answer = example.token_ids[kept[0] : kept[1]]
    assert answer == whole.token_ids[start:stop][: len(answer)]
    begins = name != "chatml" and kept[0] > 0
    assert (example.token_ids[0] == tokenizer.bos_token_id) == begins
    head = int(begins)
    assert example.token_ids[head : kept[0]] == whole.token_ids[start - kept[0] + head : start]
    # Labels of earlier turns stay where their tokens are.
    labels = [token for a, b in example.learned[:-1] for token in example.token_ids[a:b]]
    before = [token for a, b in whole.learned[:-1] for token in whole.token_ids[a:b]]
    assert labels == before[len(before) - len(labels) :]


def test_labels_of_a_batch() -> None:
    """Those of all learned runs at the places before them, or of every token but the first."""
    tokenizer = chat_tokenizer("llama")
    examples = make_chat(tokenizer).encode([{"messages": TURNS["three"]}, {"messages": TURNS["one"]}])
    for loss_on in ("response", "all"):
        batch = collate(examples, 0, loss_on=loss_on)
        width = batch.token_ids.shape[1]
        spans = [example.learned if loss_on == "response" else ((1, len(example.token_ids)),) for example in examples]
        wanted = [[i for start, stop in each for i in range(start, stop)] for each in spans]
        assert batch.num_labels == tuple(map(len, wanted))
        places = [row * width + i - 1 for row, each in enumerate(wanted) for i in each]
        assert batch.label_positions.tolist() == places
        assert torch.equal(batch.token_ids.flatten()[batch.label_positions + 1], batch.label_ids)


@torch.no_grad()
def test_the_loss_is_that_of_the_last_answer() -> None:
    """Against transformers' own loss with other labels masked."""
    tokenizer, messages = chat_tokenizer("gemma"), TURNS["repeated"]
    model = AutoModelForCausalLM.from_pretrained(PACKAGED["tiny"], dtype=torch.float32).eval()
    task = make_chat(tokenizer, max_new_tokens=2)
    examples = task.evaluation_examples([{"messages": messages}])
    metrics = task.metrics()
    task.evaluate(model, examples, metrics, torch.device("cpu"))
    made = chat_tokenizer("gemma", marked=True).apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = torch.tensor([made["input_ids"]]), torch.tensor([made["assistant_masks"]])
    mask[:, : len(examples[0].prompt_ids)] = 0
    expected = model(input_ids=ids, labels=ids.masked_fill(mask == 0, -100)).loss
    assert float(metrics["loss"].compute()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("protocol", ["teacher_forced", "options"])
def test_other_protocols(protocol: str) -> None:
    data = DataConfig(messages="messages", options=r"\((.*?)\)", answer="option")
    tokenizer = chat_tokenizer("llama")
    task = make_chat(tokenizer, data=data, protocol=protocol)
    (example,) = task.evaluation_examples([{"messages": say("True or false? (true/false)", "It is false.")}])
    model = AutoModelForCausalLM.from_pretrained(PACKAGED["tiny"], dtype=torch.float32).eval()
    (sample,) = task.evaluate(model, [example], task.metrics(), torch.device("cpu"))
    if protocol == "options":
        texts = [tokenizer.decode(candidate) for candidate in example.candidates]
        assert texts == ["It is true.<|eot_id|>", "It is false.<|eot_id|>"]
        assert (sample.reference, example.options) == ("false", ("true", "false"))
    else:
        assert sample.reference.endswith("It is false.")


THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("given", "messages", "told"),
    [
        (THINKING, TURNS["repeated"], "writes turn 2 of the conversation 'Yes\\nYes\\nYes\\nYes' otherwise"),
        (template("gemma"), MORE["system"], "System role not supported"),
        (template("gemma"), MORE["two users"], "Conversation roles must alternate"),
        ("{{ messages[9].content }}", TURNS["one"], "refuses the conversation"),
        (template("llama"), [*say("a", "b")[:1], {"role": "assistant", "content": "b", "weight": 0}], "no turn to"),
    ],
)
def test_a_row_that_the_template_refuses_is_told_with_its_number(given: str, messages: Messages, told: str) -> None:
    task = make_chat(chat_tokenizer("chatml", given=given))
    with pytest.raises(UserError) as error:
        task.check_rows([{"messages": TURNS["one"] if given == THINKING else messages}, {"messages": messages}])
    message = str(error.value)
    assert message.startswith(f"row {int(given == THINKING)}: the c")
    assert told in message
    assert ("; " in message or ": " in message) and "\n" not in message and len(message) <= 400


def test_a_rewriting_template_will_do_with_marks() -> None:
    marked = THINKING.replace("{{ message.content + '<|im_end|>\n' }}", "@").replace(
        "@",
        "{% if message.role == 'assistant' %}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ message.content + '<|im_end|>' }}{% endif %}\n",
    )
    tokenizer = chat_tokenizer("chatml", given=marked)
    (example,) = make_chat(tokenizer).encode([{"messages": TURNS["repeated"]}])
    assert learned_ids(tokenizer, example) == ["Yes<|im_end|>"] * 2


def test_what_a_tokenizer_lacks_is_told(tokenizer: Any, tmp_path: Any) -> None:
    with pytest.raises(UserError, match=r"has no chat template.*give data.chat_template=<file>"):
        ChatTokens.of(tokenizer, DATA)
    endless = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    endless += "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    with pytest.raises(UserError, match=r"no token after what an assistant says.*write \{\{ eos_token \}\} there"):
        make_chat(chat_tokenizer("chatml", given=endless)).encoder.own_texts()
    slow = chat_tokenizer("chatml")
    slow.__class__ = type("Slow", (slow.__class__,), {"is_fast": False})
    with pytest.raises(UserError, match=r"no tokenizer.json"):
        ChatTokens.of(slow, DATA)


def test_the_packaged_tokenizer_with_a_file(tokenizer: Any, tmp_path: Any) -> None:
    """It takes special tokens in a text for plain words; those that the template writes are tokens all the same."""
    path = tmp_path / "plain.jinja"
    path.write_text(
        "{{ bos_token }}{% for m in messages %}{{ '\n### ' + m.role + '\n' + m.content }}"
        "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\n### assistant\n' }}{% endif %}"
    )
    data = DataConfig(messages="messages", chat_template=str(path))
    task = make_chat(tokenizer, data=data)
    (example,) = task.encode([{"messages": TURNS["repeated"]}])
    assert tokenizer.chat_template is None
    assert example.token_ids[0] == tokenizer.bos_token_id
    assert learned_ids(tokenizer, example) == ["Yes</s>", "Yes</s>"]
    assert [example.token_ids[stop - 1] for _, stop in example.learned] == [tokenizer.eos_token_id] * 2
    assert task.encoder.end_ids == (tokenizer.eos_token_id,)

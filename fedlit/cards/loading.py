"""The Python of a card: it loads the files beside it and asks the model once, without fedlit."""

import json
from typing import Any

from fedlit.cards.files import Facts
from fedlit.tasks.registry import task_spec

HERE = '"."  # the folder of this file, or its name on the hub'


def loading_code(facts: Facts, *, is_adapter: bool, name: str = HERE) -> str | None:
    """Return Python that works in the folder of the card; None of an adapter whose base nobody else can load, and of a
    task from outside.

    Args:
        facts: of the result.
        is_adapter: a PEFT adapter, or a whole model.
        name: what the code calls the place of the files, with a comment.
    """
    if is_adapter and (facts["base"]["kind"] == "memory" or facts["base"]["weights"] != "pretrained"):
        return None
    ways = {
        "AutoModelForCausalLM": _generating,
        "AutoModelForSequenceClassification": _of_texts,
        "AutoModelForImageClassification": _of_images,
    }
    way = ways.get(task_spec(facts["task"]).auto_class)
    return None if way is None else way(facts, is_adapter, name)


def _generating(facts: Facts, is_adapter: bool, name: str) -> str:
    dtype = f", dtype={_quoted(facts['base']['dtype'])}" if is_adapter else ""
    around = "  # peft puts the adapter around its base" if is_adapter else ""
    prompt = facts["prompt"]
    lines = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig",
        "",
        f"name = {name}",
        "tokenizer = AutoTokenizer.from_pretrained(name)",
        f"model = AutoModelForCausalLM.from_pretrained(name{dtype}){around}",
        "model.generation_config = GenerationConfig.from_pretrained(name)  # as it was evaluated",
        "",
        *_prompt(prompt),
        "output = model.generate(**inputs)",
        'answer = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)',
        *([f"for stop in {_quoted(prompt['stop'])}:", "    answer = answer.split(stop)[0]"] if prompt["stop"] else []),
        "print(answer.strip())",
    ]
    return "\n".join(lines)


def _quoted(value: Any) -> str:
    """Return texts as Python; lists and mappings of texts look alike in JSON."""
    return json.dumps(value, ensure_ascii=False)


def _prompt(prompt: Facts) -> list[str]:
    """Return the lines that make `inputs`."""
    if prompt["form"] == "chat":
        return [
            'messages = [{"role": "user", "content": "How are you?"}]',
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
            ")",
        ]
    if prompt["form"] == "text":
        made = ['prompt = "Once"']
    else:
        template = prompt.get("test_template", prompt["template"])
        made = [
            f"row = {_quoted(dict.fromkeys(prompt['columns'], '...'))}",
            f"prompt = {_quoted(template)}.format(**row)",
        ]
    return [*made, 'inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)']


def _of_texts(facts: Facts, _is_adapter: bool, name: str) -> str:
    columns: Any = facts["prompt"]["text"]
    texts = ", ".join(['"..."'] * (1 if isinstance(columns, str) else len(columns)))
    length = facts["prompt"]["max_length_tokens"]
    return "\n".join(
        (
            "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
            "",
            f"name = {name}",
            "tokenizer = AutoTokenizer.from_pretrained(name)",
            "model = AutoModelForSequenceClassification.from_pretrained(name)",
            "",
            f'inputs = tokenizer({texts}, truncation=True, max_length={length}, return_tensors="pt")',
            "output = model(**inputs).logits[0]",
            *_said("output"),
        )
    )


def _of_images(facts: Facts, _is_adapter: bool, name: str) -> str:
    return "\n".join(
        (
            "from PIL import Image",
            "from transformers import AutoImageProcessor, AutoModelForImageClassification",
            "",
            f"name = {name}",
            'processor = AutoImageProcessor.from_pretrained(name, backend="pil")',
            "model = AutoModelForImageClassification.from_pretrained(name)",
            "",
            'image = Image.new("RGB", (64, 64))  # Image.open("photo.jpg").convert("RGB")',
            'output = model(**processor(image, return_tensors="pt")).logits[0]',
            *_said("output"),
        )
    )


def _said(output: str) -> list[str]:
    return [
        f"if len({output}) == 1:",
        f"    print(float({output}))",
        "else:",
        f"    print(model.config.id2label[int({output}.argmax())])",
    ]

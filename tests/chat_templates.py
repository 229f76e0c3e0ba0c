"""Chat templates written here after their published form, and tokenizers in which their tokens are tokens."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

import fedlit

TINY = Path(fedlit.__file__).parent / "tiny"
BEGIN, END = "{% generation %}", "{% endgeneration %}"

LLAMA = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{%- if message['role'] == 'assistant' %}@{{- content(message) | trim + '<|eot_id|>' }}@"
    "{%- else %}{{- content(message) | trim + '<|eot_id|>' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
"""After Llama 3: begins with bos_token, trims, ends a turn with <|eot_id|>."""

CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\n' }}"
    "{%- if message['role'] == 'assistant' %}@{{- content(message) + '<|im_end|>' }}@"
    "{%- else %}{{- content(message) + '<|im_end|>' }}{%- endif %}"
    "{{- '\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
"""ChatML: no token begins the text, a line break follows what ends a turn."""

GEMMA = (
    "{{ bos_token }}"
    "{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{%- endif %}"
    "{%- for message in messages %}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif %}"
    "{{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{%- if message['role'] == 'assistant' %}@{{- content(message) | trim + '<end_of_turn>' }}@"
    "{%- else %}{{- content(message) | trim + '<end_of_turn>' }}{%- endif %}"
    "{{- '\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<start_of_turn>model\n' }}{%- endif %}"
)
"""After Gemma 2: the assistant is called model, no system turn, turns alternate."""

CALLS = (
    "{%- macro content(message) %}{{- message['content'] if message['content'] is defined else '' }}"
    "{%- for call in message['tool_calls'] | default([]) %}<tool_call>{{ call | tojson }}</tool_call>{%- endfor %}"
    "{%- endmacro %}"
)
TOOLS = "{%- if tools %}{{- '<|im_start|>tools\n' + (tools | tojson) + '<|im_end|>\n' }}{%- endif %}"

TEMPLATES = {"llama": LLAMA, "chatml": CHATML, "gemma": GEMMA}
TURN_ENDS = {"llama": "<|eot_id|>", "chatml": "<|im_end|>", "gemma": "<end_of_turn>"}


def template(name: str, *, marked: bool = False) -> str:
    """Return a template, `marked` with {% generation %} around what an assistant says."""
    start, stop = (BEGIN, END) if marked else ("", "")
    first, second, rest = (TEMPLATES[name].split("@") + [""] * 3)[:3]
    text = CALLS + (TOOLS if name == "chatml" else "") + first + start + second + stop + rest
    assert "@" not in text
    return text


def chat_tokenizer(name: str, *, marked: bool = False, given: str | None = None) -> Any:
    """Return the packaged tokenizer with a template and its tokens, which take the places of seldom words: ids stay
    below 2,048, so that the packaged model reads them.
    """
    raw = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=with_tokens(raw), bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=512
    )
    tokenizer.chat_template = template(name, marked=marked) if given is None else given
    return tokenizer


def with_tokens(raw: Tokenizer) -> Tokenizer:
    """Return a tokenizer whose last merges are replaced by the tokens of all templates."""
    content = json.loads(raw.to_str())
    names = [*TURN_ENDS.values(), "<|start_header_id|>", "<|end_header_id|>", "<|im_start|>", "<start_of_turn>"]
    vocabulary = content["model"]["vocab"]
    last = sorted(vocabulary, key=lambda word: vocabulary[word])[-len(names) :]
    for word in last:
        del vocabulary[word]
    merged = [merge if isinstance(merge, list) else merge.split(" ") for merge in content["model"]["merges"]]
    content["model"]["merges"] = [m for m in merged if "".join(m) in vocabulary and set(m) <= vocabulary.keys()]
    made = Tokenizer.from_str(json.dumps(content))
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    assert made.get_vocab_size() == raw.get_vocab_size()
    return made

#!/usr/bin/env bash
# transformers: len(tokenizer.apply_chat_template(messages)) is 2 for every conversation, and the begin token is missing.
#
# Packages: transformers 5.23.0, from the package index, without torch; Python 3.11 or newer.
# Input:    a tokenizer that puts <s> before every text, and a chat template that does not write it; one message.
# Expected: a list of token ids, as in transformers 4, whose length is the prompt's, and which begins like every other
#           text of this tokenizer.
# Seen:     a mapping with input_ids and attention_mask: its length is 2, whatever the text is. And the template's text is
#           tokenised without special tokens, so that <s>, which a call of the tokenizer adds, is not there.
# So:       code that compares len(...) with a limit never cuts. Give return_dict=False, and compare the first id with
#           that of tokenizer(text) before training on a template.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "transformers==5.23.0" jinja2
cat >"$work/test.py" <<'PYTHON'
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

pieces = ["<s>", "<unk>", "user", "hello", "there", "my", "friend"]
words = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", unk_token="<unk>")
tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }}{% endfor %}"
messages = [{"role": "user", "content": "hello there my friend"}]
given = tokenizer.apply_chat_template(messages)
print(len(given), *given)
print("template", given["input_ids"])
print("text    ", tokenizer("user hello there my friend")["input_ids"])
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
2 input_ids attention_mask
template [2, 3, 4, 5, 6]
text     [0, 2, 3, 4, 5, 6]
SEEN
echo "as written above"

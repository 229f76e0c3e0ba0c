#!/usr/bin/env bash
# transformers: a tokenizer that splits special tokens in texts splits those of its chat template too, without a word.
#
# Packages: transformers 5.23.0, from the package index, without torch; Python 3.11 or newer.
# Input:    a tokenizer with split_special_tokens=true, which keeps users from typing control tokens, and a template that
#           writes its beginning and end of a turn.
# Expected: apply_chat_template gives the ids of <s> and </s>, as the model was trained with.
# Seen:     the template is rendered to text first, and the text is split like a user's: "<s>" becomes "<", "s", ">". No
#           warning; the model sees no special token, and a loss on such rows trains it without an end of turn.
# So:       give tokenizer_kwargs={"split_special_tokens": False}; the texts of the messages are then not guarded.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "transformers==5.23.0" jinja2
cat >"$work/test.py" <<'PYTHON'
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

pieces = ["<unk>", "<s>", "</s>", "<", ">", "/", "s", "hi", "ho"]
words = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
template = "{% for turn in messages %}{{ bos_token }} {{ turn.content }} {{ eos_token }}{% endfor %}"
messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
for split in (False, True):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>", split_special_tokens=split
    )
    tokenizer.chat_template = template
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    print(f"split_special_tokens={split}:", tokenizer.convert_ids_to_tokens(ids))
kept = tokenizer.apply_chat_template(
    messages, tokenize=True, return_dict=False, tokenizer_kwargs={"split_special_tokens": False}
)
print("with tokenizer_kwargs:", tokenizer.convert_ids_to_tokens(kept))
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
split_special_tokens=False: ['<s>', 'hi', '</s>', '<s>', 'ho', '</s>']
split_special_tokens=True: ['<', 's', '>', 'hi', '<', '/', 's', '>', '<', 's', '>', 'ho', '<', '/', 's', '>']
with tokenizer_kwargs: ['<s>', 'hi', '</s>', '<s>', 'ho', '</s>']
SEEN
echo "as written above"

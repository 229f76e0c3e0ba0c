#!/usr/bin/env bash
# transformers: a fast tokenizer saves the padding and the cutting of its last call, so that its file depends on a batch.
#
# Packages: transformers 5.23.0, from the package index, without torch; Python 3.11 or newer.
# Input:    one tokenizer; it is saved as made, after a call that pads and cuts to 4 tokens, and after one with 9.
# Expected: calls read a tokenizer, they do not change what it saves.
# Seen:     tokenizer.json has the padding and truncation of the last call: three files that differ. Read by transformers
#           the settings are set anew by every call; read by the library tokenizers, as servers in Rust do, every text is
#           padded and cut to the length of that batch.
# So:       before saving, call backend_tokenizer.no_padding() and no_truncation(), or compare saved files without them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "transformers==5.23.0"
cat >"$work/test.py" <<'PYTHON'
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

folder = Path(sys.argv[1])
words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "a": 2, "b": 3}, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")


def saved(name):
    """Save the tokenizer, and return the ids that the library tokenizers reads from the file for a text of 6 words."""
    tokenizer.save_pretrained(folder / name)
    return Tokenizer.from_file(str(folder / name / "tokenizer.json")).encode("a b a b a b").ids


print("as made  ", saved("made"))
tokenizer(["a b"], padding="max_length", truncation=True, max_length=4)
print("after 4  ", saved("four"))
tokenizer(["a b"], padding="max_length", truncation=True, max_length=9)
print("after 9  ", saved("nine"))
files = {(folder / name / "tokenizer.json").read_bytes() for name in ("made", "four", "nine")}
print("files that differ:", len(files))
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" "$work" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
as made   [2, 3, 2, 3, 2, 3]
after 4   [2, 3, 2, 3]
after 9   [2, 3, 2, 3, 2, 3, 0, 0, 0]
files that differ: 3
SEEN
echo "as written above"

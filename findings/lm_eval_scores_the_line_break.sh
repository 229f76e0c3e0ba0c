#!/usr/bin/env bash
# lm-eval: white space at the end of a prompt is scored as a part of the answer, and can become other tokens there.
#
# Packages: lm-eval 0.4.13 with torch 2.13.0 and transformers 5.23.0, from the package index, Python 3.11 or newer.
# Input:    loglikelihood of the answer "it is 5" after the prompt "3 plus 2" with a line break at its end, as prompts of
#           fine-tuning end; a model with the same probability for each of 8 tokens, so that the number of scored tokens
#           shows.
# Expected: log(1/8) for each of the three words of the answer, as after a prompt that ends with a word.
# Seen:     the line break is moved behind the prompt: four tokens are scored, not three. A model that was trained with
#           the loss on answers alone was never asked to predict it, so its score is lower than its loss says.
# So:       compare with prompts that end in no white space, or add the line break to what both sides score.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "lm-eval[hf]==0.4.13" "torch==2.13.0" "transformers==5.23.0"
cat >"$work/test.py" <<'PYTHON'
import math

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

pieces = ["<unk>", "3", "plus", "2", "it", "is", "5", "\n"]
words = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Split(Regex(" "), "removed"), pre_tokenizers.Split(Regex("\n"), "isolated")]
)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<unk>", pad_token="<unk>")
model = GPT2LMHeadModel(GPT2Config(vocab_size=len(pieces), n_positions=32, n_embd=8, n_layer=1, n_head=1))
with torch.no_grad():
    model.lm_head.weight.zero_()  # every token has the same probability
scorer = HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", batch_size=1)
for prompt, answer in (("3 plus 2", " it is 5"), ("3 plus 2\n", "it is 5")):
    asked = Instance(request_type="loglikelihood", doc={}, arguments=(prompt, answer), idx=0)
    [(score, _)] = scorer.loglikelihood([asked], disable_tqdm=True)
    print(repr(prompt), "scored tokens:", round(score / math.log(1 / len(pieces)), 3))
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
'3 plus 2' scored tokens: 3.0
'3 plus 2\n' scored tokens: 4.0
SEEN
echo "as written above"

#!/usr/bin/env bash
# sacrebleu: an empty reference beside a full one counts as the closest length, so that the brevity penalty goes.
#
# Packages: sacrebleu 2.6.0, from the package index, Python 3.11 or newer.
# Input:    one hypothesis, "the cat sat", with a reference of seven words and a second one that is missing: written ""
#           in one call and None in the other. BLEU of up to 2-grams, so that three words suffice.
# Expected: a reference without words says nothing; both calls give the score against the reference that is there.
# Seen:     with "" the reference's length is taken to be 0, which is closer to 3 than 7 is: no brevity penalty, and a
#           BLEU of 100. With None it is 26.36.
# So:       tables with several columns of references, in which empty cells become "", score short answers far too high.
#           Turn empty references into None first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "sacrebleu==2.6.0"
cat >"$work/test.py" <<'PYTHON'
from sacrebleu.metrics import BLEU

for second in ("", None):
    score = BLEU(max_ngram_order=2).corpus_score(["the cat sat"], [["the cat sat on the mat today"], [second]])
    print(repr(second), f"BLEU {score.score:.2f}, length of the reference {score.ref_len}")
PYTHON
"$work/venv/bin/python" "$work/test.py" | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
'' BLEU 100.00, length of the reference 0
None BLEU 26.36, length of the reference 7
SEEN
echo "as written above"

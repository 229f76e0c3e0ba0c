#!/usr/bin/env bash
# datasets: texts of a JSON Lines file that look like dates come back as dates, and their spelling is lost.
#
# Packages: datasets 5.2.0 with pyarrow 26.0.1, from the package index, Python 3.11 or newer.
# Input:    three rows {"answer": "..."} with "2020-01-01", "1999-12-31", "2021-05-05": strings, in quotes.
# Expected: the column is a string, as JSON says.
# Seen:     the column is timestamp[s], its values datetime.datetime(2020, 1, 1, 0, 0), ...; one row that is no date
#           among them keeps all of them strings. So the type of a column depends on which rows a client holds.
# So:       a client whose answers are all dates trains on other texts than its neighbour, or on none. Read such a file
#           with one's own JSON reader, or look for timestamps and read those columns again from the file.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "datasets==5.2.0" "pyarrow==26.0.1"
cat >"$work/test.py" <<'PYTHON'
import json
import sys
from pathlib import Path

from datasets import disable_progress_bars, load_dataset

disable_progress_bars()
folder = Path(sys.argv[1])
for name, answers in {"dates": ["2020-01-01", "1999-12-31", "2021-05-05"], "mixed": ["2020-01-01", "in May"]}.items():
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"answer": answer}) + "\n" for answer in answers))
    rows = load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder / "cache"))
    print(name, rows.features["answer"].dtype, repr(rows[0]["answer"]))
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" "$work" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
dates timestamp[s] datetime.datetime(2020, 1, 1, 0, 0)
mixed string '2020-01-01'
SEEN
echo "as written above"

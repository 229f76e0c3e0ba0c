#!/usr/bin/env bash
# NVFlare: what an aggregator refuses by an exception is left out, round after round, and the job ends well.
#
# Packages: nvflare 2.9.0, from the package index, Python 3.11 or newer.
# Input:    a FedAvg job in the simulator with three sites and an own ModelAggregator, whose accept_model raises an error for
#           what site-2 sends: it has other tensors than the others.
# Expected: the job stops with the error, as it does where aggregate_model raises one.
# Seen:     one line "Unsuccessful callback" in the server's log; the round goes on with two sites of three, the next one
#           too, and the job ends with exit code 0.
# So:       keep what accept_model raises and raise it again in aggregate_model, as the apps of `fedlit export --to nvflare`
#           do; or compare the number of results with the number of sites there.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "nvflare==2.9.0"
cat >"$work/careful.py" <<'PYTHON'
import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator


class Careful(ModelAggregator):
    """A mean of sites with two numbers each, which asks for two."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def accept_model(self, model):
        (numbers,) = model.params.values()
        if numbers.shape != (2,):
            raise ValueError(f"{model.meta['client_name']} sends {numbers.size} numbers; they must be 2")
        self.seen.append(numbers)

    def aggregate_model(self):
        print(f"SEEN the mean of {len(self.seen)} sites", flush=True)
        return FLModel(params={"numpy_key": np.mean(self.seen, axis=0)})

    def reset_stats(self):
        self.seen = []
PYTHON
cat >"$work/client.py" <<'PYTHON'
import numpy as np
import nvflare.client as flare

flare.init()
while flare.is_running():
    if flare.receive() is None:
        break
    size = 3 if flare.get_site_name() == "site-2" else 2
    flare.send(flare.FLModel(params={"numpy_key": np.zeros(size)}))
PYTHON
cat >"$work/job.py" <<'PYTHON'
from careful import Careful
from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
from nvflare.recipe import SimEnv

recipe = NumpyFedAvgRecipe(
    name="job", model=[0.0, 0.0], min_clients=3, num_rounds=2, train_script="client.py", aggregator=Careful()
)
recipe.execute(SimEnv(num_clients=3, workspace_root="workspace"))
PYTHON
cd "$work"
code=0
"$work/venv/bin/python" job.py >"$work/log" 2>&1 || code=$?
grep -oE "SEEN .*|ERROR - Unsuccessful callback|site-2 sends .*" "$work/log" | tee "$work/seen"
echo "exit code $code" | tee -a "$work/seen"
diff "$work/seen" - <<'SEEN'
ERROR - Unsuccessful callback
site-2 sends 3 numbers; they must be 2
SEEN the mean of 2 sites
ERROR - Unsuccessful callback
site-2 sends 3 numbers; they must be 2
SEEN the mean of 2 sites
exit code 0
SEEN
echo "as written above"

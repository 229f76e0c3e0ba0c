#!/usr/bin/env bash
# Flower: `flwr run --stream` of a run that failed ends with exit code 0.
#
# Packages: flwr 1.41.0 with its simulation extra, from the package index, Python 3.11 or newer.
# Input:    an app whose ServerApp raises ValueError; a SuperLink in simulation mode on a free port of this machine;
#           `flwr run app test --stream`, which waits for the run's end and shows its log.
# Expected: an exit code other than 0, as the log ends with "Exit Code: 700" and `flwr list` says finished:failed.
# Seen:     exit code 0.
# So:       a script that looks at the exit code takes a failed federation for a good one. Look for the run's result, or
#           ask `flwr list --format json`.
set -euo pipefail
work=$(mktemp -d)
link=
trap 'test -z "$link" || kill "$link"; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "flwr[simulation]==1.41.0"
export PATH="$work/venv/bin:$PATH" FLWR_HOME="$work/home" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 RAY_USAGE_STATS_ENABLED=0
mkdir -p "$work/app/mini" "$work/home"
touch "$work/app/mini/__init__.py"
cat >"$work/app/pyproject.toml" <<'TOML'
[project]
name = "mini"
version = "1.0.0"
description = "fails"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "nobody"

[tool.flwr.app.components]
serverapp = "mini.apps:server"
clientapp = "mini.apps:client"
TOML
cat >"$work/app/mini/apps.py" <<'PYTHON'
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

server = ServerApp()
client = ClientApp()


@server.main()
def main(grid, context):
    raise ValueError("the server has no test set")
PYTHON
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/home/config.toml" <<TOML
[superlink]
default = "test"

[superlink.test]
address = "127.0.0.1:$port"
insecure = true
TOML
cd "$work"
flower-superlink --insecure --simulation --isolation subprocess --host 127.0.0.1 --port "$port" >link.log 2>&1 &
link=$!
for _ in $(seq 100); do
    python3 -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$port/health', timeout=1)" 2>/dev/null && break
    sleep 0.5
done
code=0
flwr run app test --stream >run.log 2>&1 || code=$?
{
    grep -o "ValueError: the server has no test set" run.log | head -1
    grep -o "Exit Code: [0-9]*" run.log
    echo "status $(flwr list --format json 2>/dev/null | grep -o 'finished:[a-z]*')"
    echo "exit code of flwr run: $code"
} | tee seen
diff seen - <<'SEEN'
ValueError: the server has no test set
Exit Code: 700
status finished:failed
exit code of flwr run: 0
SEEN
echo "as written above"

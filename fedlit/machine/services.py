"""What stands beside Python: SLURM, Java, logins, and the variables that keep a run from the network."""

import netrc
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from fedlit.errors import UserError
from fedlit.lines import cut
from fedlit.machine import Finding, note
from fedlit.metrics.meteor_jar import require_meteor

ANSWER_S = 5.0
"""Longest wait for a controller of SLURM."""
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "WANDB_MODE", "WANDB_DISABLED")
_SETTINGS = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "FEDLIT_CONFIG_PATH")


def look_at_services(environ: Mapping[str, str], home: Path) -> Iterator[Finding]:
    """Yield what a run may talk to.

    home: of the user, where logins lie.
    """
    yield from slurm()
    yield meteor()
    yield wandb_login(environ, home)
    yield hub_login(environ, home)
    for name in OFFLINE:
        if environ.get(name):
            yield note(name, cut(environ[name]), "unset it where a run should reach the network")
    for name in _SETTINGS:
        if environ.get(name):
            yield Finding(name, cut(environ[name]))


def slurm(answer_s: float = ANSWER_S) -> Iterator[Finding]:
    """Yield the version of SLURM and its partitions."""
    if shutil.which("sbatch") is None:
        yield Finding("slurm", "not on this machine; 'fedlit sweep run --local' needs none")
        return
    yield Finding("slurm", _answer(answer_s, "sbatch", "--version") or "sbatch is there and tells no version")
    told = _answer(answer_s, "sinfo", "--noheader", "--format=%P %a %D %l")
    if told is None:
        yield note(
            "partitions", f"no controller answers within {answer_s:g} seconds", "ask `sinfo`; submit from a login node"
        )
        return
    for line in told.splitlines():
        name, state, nodes, limit = (*line.split(), "", "", "", "")[:4]
        yield Finding("partition", f"{name.rstrip('*')} {state}, {nodes} nodes, at most {limit}")


def _answer(answer_s: float, *words: str) -> str | None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=answer_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def meteor() -> Finding:
    """Return whether METEOR 1.5 can be computed."""
    try:
        require_meteor()
    except UserError as error:
        _, _, reason = str(error).partition(", but ")
        return note("METEOR 1.5", reason or str(error))
    return Finding("METEOR 1.5", "its Java program starts")


def wandb_login(environ: Mapping[str, str], home: Path) -> Finding:
    """Return whether somebody has logged in to W&B here; the key itself is not looked at."""
    host = urlsplit(environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or "api.wandb.ai"
    if environ.get("WANDB_API_KEY"):
        return Finding("W&B", f"a key for {host} is in WANDB_API_KEY")
    file = Path(environ.get("NETRC") or home / ".netrc")
    try:
        known = host in netrc.netrc(str(file)).hosts
    except FileNotFoundError:
        known = False
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
        return note("W&B", f"{file} cannot be read ({type(error).__name__})", "mend it, or set WANDB_API_KEY")
    if known:
        return Finding("W&B", f"{file} has a key for {host}")
    return Finding("W&B", f"no login to {host}; `wandb login`, or logging.wandb=offline or disabled, which need none")


def hub_login(environ: Mapping[str, str], home: Path) -> Finding:
    """Return whether there is a token of the Hugging Face hub; the token itself is not looked at."""
    if environ.get("HF_TOKEN"):
        return Finding("hub", "a token is in HF_TOKEN")
    cache = Path(environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "huggingface")
    file = Path(environ.get("HF_TOKEN_PATH") or cache / "token")
    if file.is_file():
        return Finding("hub", f"a token is in {file}")
    return Finding("hub", "no login to the Hugging Face hub; `hf auth login` for models that ask for one")

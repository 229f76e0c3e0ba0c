"""What the libraries say when they are imported, in a process of its own: devices, backends, kernels, bytecode."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedlit.lines import cut
from fedlit.machine import Finding, note, problem
from fedlit.machine.probe import NEEDED
from fedlit.units import readable_bytes

PROBE_S = 300
"""Longest wait for the imports, which a cold network file system makes long."""
MANY_MISSING = 50
"""Modules without bytecode that are worth a word."""
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow"}
_NF4 = "only model.quantization=nf4 needs it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What the probing process told.

    errors: by library, None where its import works. last: what was being imported when it told the last. ending: how
    it ended, None if well.
    """

    errors: Mapping[str, str | None] = field(default_factory=dict)
    torch: Mapping[str, Any] | None = None
    bitsandbytes: str | None = None
    missing_bytecode: int = 0
    last: str = ""
    ending: str | None = None


def look_at_libraries() -> Iterator[Finding]:
    """Yield what the imports and torch tell."""
    yield from findings(run_probe(), driver=cuda_driver())


def run_probe(command: Sequence[str] = (sys.executable, "-m", "fedlit.machine.probe")) -> Probe:
    """Import the libraries in another process and return what it told."""
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_S,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
        output, ending = done.stdout, _ending(done.returncode, done.stderr)
    except subprocess.TimeoutExpired as late:
        output = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else ""
        ending = f"takes more than {PROBE_S} seconds"
    except OSError as error:
        return Probe(ending=f"cannot be started ({error.strerror})")
    return read_probe(output, ending)


def _ending(code: int, errors: str) -> str | None:
    if code == 0:
        return None
    if code < 0:
        return f"ends with {signal.Signals(-code).name}"
    return cut((errors.strip().splitlines() or [f"exit code {code}"])[-1])


def read_probe(output: str, ending: str | None) -> Probe:
    """Return what a probe's lines say; those of other form, which a library may print, are passed over."""
    errors: dict[str, str | None] = {}
    told: dict[str, Any] = {}
    for line in output.splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            told |= content
            if "import" in content:
                errors[content["import"][0]] = content["import"][1]
    return Probe(
        errors=errors,
        torch=told.get("torch"),
        bitsandbytes=told.get("bitsandbytes"),
        missing_bytecode=told.get("bytecode", 0),
        last=told.get("begins", "") if "torch" not in told else "torch's own look at the machine",
        ending=ending,
    )


def findings(probe: Probe, *, driver: str | None) -> Iterator[Finding]:
    """Yield what a probe means for a run.

    driver: version of the NVIDIA driver, None without one.
    """
    for name, error in probe.errors.items():
        if error is not None:
            package = name.partition(".")[0]
            remedy = f"pip install --force-reinstall {_DISTRIBUTIONS.get(package, package)}"
            yield (problem if name in NEEDED else note)("import", f"{name}: {cut(error)}", remedy)
    if probe.ending is not None:
        yield problem("import", f"{probe.last or 'python'} {probe.ending}", "mend that library, or install it again")
    if probe.errors and probe.ending is None and not any(probe.errors.values()):
        yield Finding("import", f"all {len(probe.errors)} that were tried work")
    if probe.torch is None:
        return
    yield from _devices(probe.torch, driver)
    yield from _kernels(probe)
    yield bytecode(probe.missing_bytecode)


def _devices(torch: Mapping[str, Any], driver: str | None) -> Iterator[Finding]:
    gpus = torch["gpus"]
    for index, gpu in enumerate(gpus):
        major, minor = gpu["capability"]
        types = "bf16" if torch["bf16"] else "no bf16"
        yield Finding(
            f"cuda:{index}", f"{gpu['name']}, {readable_bytes(gpu['memory'])}, capability {major}.{minor}, {types}"
        )
    version = torch["version"]
    if gpus:
        yield Finding("cuda", f"torch {version} for CUDA {torch['cuda']}, driver {driver or 'unknown'}")
    elif driver is not None:
        built = f"is built for CUDA {torch['cuda']}" if torch["cuda"] else "is built without CUDA"
        remedy = "install a build of torch that this driver runs, or look at CUDA_VISIBLE_DEVICES"
        yield note("cuda", f"there is a driver ({driver}), and torch {version} {built} and sees no GPU", remedy)
    else:
        yield Finding("cuda", f"no GPU; torch {version} computes on the CPU")
    if torch["mps"]:
        yield Finding("mps", "there, and not used: compute.accelerator takes cpu and cuda")
    yield Finding("threads", f"{torch['threads']} by default; compute.threads sets them for a run")
    backends = torch["backends"]
    if "gloo" not in backends:
        yield note("backends", ", ".join(backends) or "none", "runs of several processes need gloo or nccl")
    else:
        yield Finding("backends", ", ".join(backends))


def _kernels(probe: Probe) -> Iterator[Finding]:
    assert probe.torch is not None
    flash = "flash-attn is installed" if probe.torch["flash"] else "torch's own (sdpa); flash-attn is not installed"
    yield Finding("attention", flash)
    if probe.bitsandbytes is not None:
        yield note("bitsandbytes", cut(probe.bitsandbytes), f"pip install bitsandbytes; {_NF4}")
    elif not probe.torch["gpus"]:
        yield Finding("bitsandbytes", f"can be imported; {_NF4}, on a GPU")
    else:
        yield Finding("bitsandbytes", f"can be imported; {_NF4}")


def bytecode(num_missing: int) -> Finding:
    """Return whether starts compile modules anew; what could be written has been written by the probe's imports."""
    folder = sysconfig.get_paths()["purelib"]
    if num_missing < MANY_MISSING:
        return Finding("bytecode", "compiled")
    remedy = f"python -m compileall -q {folder}, by who may write there"
    if sys.dont_write_bytecode:
        remedy = f"unset PYTHONDONTWRITEBYTECODE, or {remedy}"
    return note("bytecode", f"{num_missing:,} imported modules have none, and every start compiles them anew", remedy)


def cuda_driver() -> str | None:
    """Return the version of the NVIDIA driver; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None

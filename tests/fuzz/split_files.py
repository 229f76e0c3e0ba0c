"""Partition files: splits in each of the three forms that are read, with one part that is not as it should be."""

import gzip
import json
from typing import Any

import nasty
from cases import Case
from hypothesis import strategies as st
from option_words import merged
from runner import SMALL

SPLIT = [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
NAMED = {"client 0": SPLIT[0], "client 1": SPLIT[1], "unassigned": [20]}
SEVERAL = {"alpha": NAMED, "beta": SPLIT, "about": "two splits", "seeds": [1, 2]}
KEYS = ("alpha", "beta", "about", "gamma", "null", "1", "[a]")


@st.composite
def split_files(draw: st.DrawFn, own: dict[str, Any]) -> Case:
    """A split, several of them, or a run's `own` partition.json."""
    kind = draw(st.sampled_from(["list", "object", "several", "own"]))
    value = draw(nasty.mutated({"list": SPLIT, "object": NAMED, "several": SEVERAL, "own": own}[kind]))
    content = nasty.dumps(value).encode("utf-8", "surrogatepass")
    content = draw(st.just(content) | st.just(content) | nasty.damaged(content))
    name = draw(st.sampled_from(["split.json", "split.json", "split.json.gz", "split"]))
    if name.endswith(".gz"):
        content = draw(st.just(gzip.compress(content, mtime=0)) | nasty.damaged(gzip.compress(content, mtime=0)))
    key = draw(st.sampled_from([[], [], [f"partition.key={draw(st.sampled_from(KEYS))}"]]))
    more = draw(
        st.sampled_from([[], [], ["num_clients=1"], ["data.sample=5"], ["partition.num_shards=3"], ["eval.on=both"]])
    )
    words = ["partition.name=file", f"partition.path={name}", *key, *more]
    dry = draw(st.sampled_from([[], ["dry_run=true"], ["dry_run=true"]]))
    return Case(script="federate.py", words=merged(SMALL, [*words, *dry]), files={name: content})


def own_split(text: str) -> dict[str, Any]:
    """Return a run's partition.json."""
    value: dict[str, Any] = json.loads(text)
    return value

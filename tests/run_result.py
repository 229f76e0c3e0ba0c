"""What two runs must have in common to be the same run: results byte for byte, records but for their times."""

import json
from pathlib import Path


def run_result(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """Return a run's result and its server's tensors, file by file, and its records without the times."""
    newest = max(folder.glob("checkpoints/round-????"))
    paths = sorted(path for path in folder.glob("adapter/**/*") if path.is_file())
    assert any(path.suffix == ".safetensors" for path in paths), f"{folder} has no result"
    paths += sorted(newest.glob("*.safetensors"))
    tensors = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return tensors, [json.dumps(_without_times(json.loads(line))) for line in lines]


def _without_times(record: dict[str, object]) -> dict[str, object]:
    """Return a record without the only keys in which two equal runs may differ."""
    return {key: value for key, value in record.items() if not key.startswith("time/")}

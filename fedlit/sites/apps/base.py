"""What an app is made of: a framework's templates, the configuration, and a README about this very federation."""

import re
import string
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fedlit.algebra.tensors import num_bytes, num_parameters
from fedlit.config import RunConfig
from fedlit.inputs import Inputs
from fedlit.method import Method
from fedlit.planning import attach_adapter, make_plan
from fedlit.process.whole_folder import new_folder
from fedlit.sites.app_config import for_app, write_config
from fedlit.sites.fitness import require_fit, what_sites_keep, what_the_server_sees
from fedlit.tasks.registry import task_spec
from fedlit.units import readable_bytes

TEMPLATES = Path(__file__).with_name("templates")
FILLED = (".md", ".toml", ".yaml")
"""Endings of files with $names in them; code is copied as it is."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A framework.

    name: as `--to` has it, and the folder of its templates. title: as people write it. package, tested: the
    distribution, and the version that the app was run with. config_in: the folder of config.yaml inside the app.
    values: further names for the templates.
    """

    name: str
    title: str
    package: str
    tested: str
    config_in: str
    values: dict[str, str] = field(default_factory=dict)

    def write(self, config: RunConfig, method: Method, folder: Path) -> list[str]:
        """Write the app into a new folder; return lines that a person should read.

        Raises:
            UserError: the folder exists, or real sites cannot have this configuration.
        """
        require_fit(config, method)
        own, notices = for_app(config)
        values = {**self.values, **self._values(own, method, Sizes.of(own))}
        source = TEMPLATES / self.name
        with new_folder(folder, "--out") as partial:
            for path in sorted(
                each for each in source.rglob("*") if each.is_file() and "__pycache__" not in each.parts
            ):
                text = path.read_text(encoding="utf-8")
                target = partial / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                filled = string.Template(text).substitute(values) if path.suffix in FILLED else text
                target.write_text(filled, encoding="utf-8")
            write_config(own, partial / self.config_in)
        return [*notices, what_the_server_sees(method)]

    def _values(self, config: RunConfig, method: Method, sizes: "Sizes") -> dict[str, str]:
        data = config.data
        columns = dict.fromkeys(task_spec(data.task).columns(data))
        return {
            # Flower takes letters, digits and hyphens, 32 of them.
            "name": re.sub("[^a-z0-9]+", "-", f"fedlit-{method.name}".lower())[:32].strip("-"),
            "description": f"{method.name} of fedlit over {config.num_clients} sites",
            "method": method.name,
            "num_clients": str(config.num_clients),
            "last_client": str(config.num_clients - 1),
            "num_rounds": str(config.num_rounds),
            "title": self.title,
            "package": self.package,
            "tested": self.tested,
            "columns": ", ".join(f"`{column}`" for column in columns) or "those of the data set",
            "model": config.model.path,
            "data": data.name,
            "run_folder": f"{config.run.dir}/{config.run.name}",
            "sees": what_the_server_sees(method),
            "keeps": what_sites_keep(config, method, sizes.num_private),
            "shared_bytes": readable_bytes(sizes.shared_bytes),
            "scored": _scored(config),
            "sites": "\n".join(f"site-{number + 1}:" for number in range(config.num_clients)),
        }


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of a method on its model, from shapes: bytes of the tensors that travel, numbers that stay with each client."""

    shared_bytes: int
    num_private: int

    @classmethod
    def of(cls, config: RunConfig) -> "Sizes":
        """Return the sizes; no weight is read."""
        plan = make_plan(Inputs(config=config, rows=[], shards=[], classes=tuple(config.data.classes or ())))
        backbone = plan.backbone(weights=False)
        with torch.device("meta"):
            attach_adapter(plan, backbone)
        shared, private = plan.method.shared(backbone.model), plan.method.private(backbone.model)
        return cls(shared_bytes=num_bytes(shared), num_private=num_parameters(private))


def _scored(config: RunConfig) -> str:
    """Return who scores on what, in a sentence."""
    at_centre = "the server needs a test set of its own: name its file as `data.test_path` in `config.yaml`"
    if config.eval.on == "clients":
        return "Each site scores the model on a part of its own rows (`eval.on=clients`); the server has no rows."
    if config.eval.on == "both":
        return f"Each site scores on a part of its own rows, and {at_centre} (`eval.on=both`)."
    return f"On real sites {at_centre}; or give `eval.on: clients`, and each site scores on its own rows."

"""What runs need of the Hugging Face hub, fetched on a machine with a network for compute nodes that have none.

Models and data go into the cache from which transformers and datasets read them with HF_HUB_OFFLINE=1, each once
however many cells of a sweep name it. Neither torch nor transformers is imported.
"""

from fedlit.lab.prefetch.hub import (
    HubUnreachableError,
    Item,
    base_need,
    cache_home,
    compute_node_variables,
    fetch,
    look_up,
    require_space,
)
from fedlit.lab.prefetch.needs import HubData, HubModel, LocalPath, Need, needs_of, run_configs

__all__ = [
    "HubData",
    "HubModel",
    "HubUnreachableError",
    "Item",
    "LocalPath",
    "Need",
    "base_need",
    "cache_home",
    "compute_node_variables",
    "fetch",
    "look_up",
    "needs_of",
    "require_space",
    "run_configs",
]

"""Download on a machine with a network what runs need on compute nodes without one: models, tokenizers, data sets.

Everything goes into the Hugging Face cache (HF_HOME), each thing once however many cells of a sweep name it; what is
there already stays. Local paths are checked. A name that is both an experiment and a sweep is the sweep.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedlit.arguments import CommandParser
from fedlit.commands.endings import tell, without_traceback
from fedlit.units import readable_bytes

if TYPE_CHECKING:
    from fedlit.lab.prefetch import Item, Need

EXAMPLES = """\
examples:
  fedlit fetch fedex_glue
  fedlit fetch scl_table2 model=tinyllama --dry-run
  fedlit fetch data=medquad model=gpt2
"""


def main(words: Sequence[str]) -> int:
    """Fetch what the words name, print where it is and return the exit code."""
    parser = CommandParser("fetch", __doc__, EXAMPLES)
    parser.add_argument(
        "words", nargs="+", metavar="EXPERIMENT|SWEEP|KEY=VALUE", help="a name, arguments of 'fedlit run', or both"
    )
    parser.add_argument("--dry-run", action="store_true", help="tell what is there and what is not; download nothing")

    def run() -> int:
        options = parser.parse(words)
        return prefetch(options.words, dry_run=options.dry_run)

    return without_traceback(run)


def prefetch(words: Sequence[str], *, dry_run: bool) -> int:
    """Look everything up, then download what is missing."""
    from fedlit.lab.prefetch import (  # noqa: PLC0415  so that --help comes at once
        cache_home,
        compute_node_variables,
        fetch,
        needs_of,
        require_space,
        run_configs,
    )

    needs = needs_of(run_configs(words))
    found = _look_up_all(needs, dry_run=dry_run)
    if not dry_run:
        require_space(found)
    for item in found:
        _print(item if dry_run else fetch(item))
    if not needs:
        print("nothing to download: model and data are inside the package")
    print("\non the compute nodes, which have to see this folder:")
    print(f"  export {' '.join(f'{name}={value}' for name, value in compute_node_variables().items())}")
    print(cache_home())
    return 0


def _look_up_all(needs: "Sequence[Need]", *, dry_run: bool) -> "list[Item]":
    """Return how every need stands; a dry run goes on without a network."""
    from fedlit.lab.prefetch import HubUnreachableError, Item, LocalPath, base_need, look_up  # noqa: PLC0415  as above

    found: list[Item] = []
    unreachable = False
    for need in needs:
        item = Item(need=need, state="unknown")
        base = None
        if not unreachable or isinstance(need, LocalPath):
            try:
                item, base = look_up(need), base_need(need)
            except HubUnreachableError as error:
                if not dry_run:
                    raise
                tell(f"warning: {error}")
                unreachable = True
        found.append(item)
        if base is not None and base not in needs:
            found.append(look_up(base))
    return found


def _print(item: "Item") -> None:
    size = "" if item.num_bytes is None else readable_bytes(item.num_bytes)
    line = f"{item.need.kind:5}  {item.need.name:40}  {item.state:10}  {size:>9}  {item.path or ''}"
    print(line.rstrip(), flush=True)

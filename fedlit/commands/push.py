"""Push the result of a run to the Hugging Face hub: weights, tokenizer, prompt, generation settings and model card.

--dry-run shows what would be sent and asks no network. Nothing is sent that names a place of this machine or holds a
token. An adapter whose base model lies on this machine alone needs --base-model, its name on the hub.
"""

import argparse
from collections.abc import Sequence

from fedlit.arguments import CommandParser, integer
from fedlit.commands.endings import without_traceback
from fedlit.process.storage import user_path
from fedlit.units import readable_bytes

EXAMPLES = """\
examples:
  fedlit push runs/fedit-medquad-tinyllama-seed0 me/medquad-fedit --dry-run
  fedlit push runs/medquad me/medquad --merged --private
  fedlit push runs/medquad me/medquad --base-model TinyLlama/TinyLlama-1.1B-Chat-v1.0
"""


def main(words: Sequence[str]) -> int:
    """Send the result, or show it, and return the exit code."""
    parser = CommandParser("push", __doc__, EXAMPLES)
    parser.add_argument("run", type=user_path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="repository on the hub, made unless it is there")
    parser.add_argument("--merged", action="store_true", help="the whole model that `fedlit merge RUN` wrote")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent, and send nothing")
    parser.add_argument("--base-model", metavar="OWNER/NAME", help="of an adapter: its base model's name on the hub")
    parser.add_argument("--client", type=integer, metavar="N", help="whose, where every client has its own result")
    parser.add_argument("--unfinished", action="store_true", help="of a run that is not done: its newest checkpoint")
    return without_traceback(lambda: _push(parser.parse(words)))


def _push(options: argparse.Namespace) -> int:
    from fedlit.exported.found import find_result  # noqa: PLC0415  so that --help comes at once
    from fedlit.exported.push import folder_to_push, is_logged_in, prepare, require_repo_id, send  # noqa: PLC0415

    require_repo_id(options.repo_id)
    if options.base_model is not None:
        require_repo_id(options.base_model, "the name of a model")
    result = find_result(options.run, unfinished=options.unfinished, client_id=options.client)
    from fedlit.exported.unfinished import settled  # noqa: PLC0415  torch, of an unfinished run alone

    with settled(result) as settled_result:
        folder = folder_to_push(settled_result, merged=options.merged)
        upload = prepare(folder, options.repo_id, options.run, base_model=options.base_model)
        total = readable_bytes(sum(upload.sizes.values()))
        if not options.dry_run:
            address = send(upload, private=options.private)
            print(f"{address} ({len(upload.files)} files, {total})")
            return 0
        width = max(map(len, upload.files)) + 2
        whose = "private" if options.private else "public"
        print(f"{folder} to {options.repo_id} (model, {whose} if it is new): {len(upload.files)} files, {total}")
        for name, size in upload.sizes.items():
            print(f"  {name.ljust(width)}{readable_bytes(size)}")
        print(f"login: {'a token is there' if is_logged_in() else 'none; `hf auth login`, or HF_TOKEN'}")
        print("nothing was sent (--dry-run); the card begins:", upload.card_head, sep="\n")
    return 0

"""Writes what a language model tells of itself: texts drawn from it, a general set on which forgetting is measured.

python stories.py MODEL_FOLDER stories.jsonl
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

NUM_TEXTS, NUM_TOKENS, SEED = 96, 120, 0


def main(model_folder: str, target: Path) -> None:
    """Draw texts at temperature 1 from nothing but the first token."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder).eval()
    torch.manual_seed(SEED)
    start = torch.full((NUM_TEXTS, 1), tokenizer.bos_token_id)
    mask = torch.ones_like(start)
    drawn = model.generate(
        start,
        attention_mask=mask,
        do_sample=True,
        top_k=0,
        max_new_tokens=NUM_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
    )
    texts = tokenizer.batch_decode(drawn, skip_special_tokens=True)
    target.write_text("".join(json.dumps({"text": text.strip()}) + "\n" for text in texts if text.strip()))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

"""Pretrain the backbone inside the package, `model=tiny`, on the documentation of the Python standard library.

A demonstration and a test need a pretrained language model that is there offline and computes quickly on one core. This
one has about 1.2 M parameters and its own tokenizer, and has read everything that `data=pydoc` does not serve as rows.

With --steps alone the result depends on --seed, --threads and the versions of Python and torch; --minutes bends the
schedule to the clock, so that its result does not repeat.
"""

import argparse
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import fedlit
from fedlit.commands.endings import without_traceback
from fedlit.data.pydoc import DEMO_PACKAGES, pretraining_texts
from fedlit.seeding import numpy_generator, torch_stream

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
NUM_VOCAB = 2048
CONTEXT_TOKENS = 512
TRAINING_TOKENS = 256
HELD_OUT_SHARE = 0.02

README = """\
# tiny: the backbone inside the package

A causal language model of the Llama architecture with {num_parameters:,} parameters, made for demonstrations and
tests: it is there offline and computes quickly on one core. It writes short docstrings, plausible and often wrong.

| | |
|---|---|
| hidden / MLP / layers | {config.hidden_size} / {config.intermediate_size} / {config.num_hidden_layers} |
| heads / key-value heads | {config.num_attention_heads} / {config.num_key_value_heads} |
| embeddings | tied, vocabulary {config.vocab_size} |
| context | {config.max_position_embeddings} tokens, trained on windows of {window} |
| tokenizer | byte-level BPE; every text round-trips; `<s>` before each text, nothing after it |
| special tokens | `<pad>` 0, `<s>` 1, `</s>` 2; these strings inside a text are ordinary characters |
| weights | float16 on disk; load with `dtype=torch.float32` |

Training text: docstrings, documented code, longer comments and the language topics of the standard library of Python
{python}, {num_texts:,} texts, {num_chars:,} characters. Left out are the packages that `data=pydoc` serves: {demo}.
`</s>` ended every text.

    {command}

| | |
|---|---|
| steps | {num_steps:,} of {batch_size} x {window} tokens, {num_tokens:,} training tokens in all |
| time | {wall_minutes:.0f} minutes of wall clock, {cpu_minutes:.0f} of processor time, {threads} thread(s) |
| machine | {processor}, torch {torch} |
| validation loss on {held_out:.0%} of the texts, held out | {nats:.3f} nats per token, {bits:.3f} bits per character |

Licence: the weights and the tokenizer are published under the licence of this package (Apache-2.0). The training text
is part of CPython, Copyright Python Software Foundation, under the PSF License Version 2.
"""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Loss on held-out text."""

    nats_per_token: float
    bits_per_char: float


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer (Sennrich et al. 2016; bytes as in GPT-2) that puts <s> before each text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_VOCAB,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # "</s>" inside somebody's text is text, not the end
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return the untrained network; query and value projections differ in shape, as in the larger Llamas."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=0.04,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[np.ndarray]:
    """Return the token ids of each text, from <s> to </s>."""
    eos = tokenizer.eos_token_id
    return [np.array([*ids, eos], dtype=np.int64) for ids in tokenizer(texts, verbose=False)["input_ids"]]


def windows(documents: list[np.ndarray], seed: int) -> Iterator[torch.Tensor]:
    """Yield windows of packed text, shape (TRAINING_TOKENS,), for ever: each epoch shuffles the documents anew."""
    epoch = 0
    while True:
        order = numpy_generator(seed, "pretrain/order", round_idx=epoch).permutation(len(documents))
        stream = np.concatenate([documents[idx] for idx in order])
        num_windows = len(stream) // TRAINING_TOKENS
        assert num_windows, "the documents are shorter than one window"
        yield from torch.from_numpy(stream[: num_windows * TRAINING_TOKENS].reshape(num_windows, TRAINING_TOKENS))
        epoch += 1


@torch.no_grad()
def score(model: LlamaForCausalLM, documents: list[np.ndarray], num_chars: int) -> Score:
    """Return the loss over all tokens but <s>, each document on its own and in windows of TRAINING_TOKENS."""
    model.eval()
    nats, num_tokens = 0.0, 0
    for ids in documents:
        for start in range(0, len(ids) - 1, TRAINING_TOKENS):
            window = torch.from_numpy(ids[start : start + TRAINING_TOKENS + 1])
            loss = model(input_ids=window[None], labels=window[None]).loss
            nats += float(loss) * (len(window) - 1)
            num_tokens += len(window) - 1
    model.train()
    return Score(nats_per_token=nats / num_tokens, bits_per_char=nats / math.log(2) / num_chars)


def train(
    model: LlamaForCausalLM,
    stream: Iterator[torch.Tensor],
    progress: Callable[[int], float],
    *,
    batch_size: int,
    lr: float,
    every: int,
) -> int:
    """Train until `progress(step)`, the share of the schedule that is done, reaches 1; return the number of steps.

    The learning rate rises over the first 3 % and falls along a cosine to 2 % of `lr`.
    """
    decayed = [param for param in model.parameters() if param.ndim > 1]
    kept = [param for param in model.parameters() if param.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": kept, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)
    start_s, step, running = time.perf_counter(), 0, 0.0
    model.train()
    while (done := progress(step)) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, done / 0.03 + 0.02) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        batch = torch.stack([next(stream) for _ in range(batch_size)])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        running += float(loss.detach())
        if step % every == 0:
            elapsed_s = time.perf_counter() - start_s
            speed = f"{step * batch.numel() / elapsed_s:,.0f} tokens/s"
            print(f"step {step:5d}  {done:4.0%}  loss {running / every:.3f}  {speed}  {elapsed_s:.0f} s", flush=True)
            running = 0.0
    return step


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the folder that `from_pretrained` reads: weights in float16, to be computed with in float32."""
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=64,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model.half().save_pretrained(out)
    model.config.dtype = torch.float32
    model.config.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # safetensors makes it readable by its owner alone


def processor_name() -> str:
    """Return the processor's name as Linux knows it, else the machine type."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    default_out = Path(fedlit.__file__).parent / "tiny"
    parser.add_argument("--out", type=Path, default=default_out, help="folder to write")
    parser.add_argument("--steps", type=int, default=6000, help="optimizer steps")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="longest training; the schedule is fitted to it"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--batch-size", type=int, default=4, help="windows of one step")
    parser.add_argument("--lr", type=float, default=4e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0, help="root of every random stream")
    parser.add_argument("--every", type=int, default=200, help="steps between two lines of progress")
    return parser.parse_args()


def write_readme(
    args: argparse.Namespace,
    model: LlamaForCausalLM,
    texts: list[str],
    num_steps: int,
    *,
    wall_s: float,
    cpu_s: float,
    result: Score,
) -> None:
    """Write what the model is, what it read, the command that made it and what was measured."""
    limit = f"--minutes {args.minutes:g} " if math.isfinite(args.minutes) else ""
    options = f"--batch-size {args.batch_size} --lr {args.lr:g} --threads {args.threads} --seed {args.seed}"
    readme = README.format(
        num_parameters=model.num_parameters(),
        config=model.config,
        window=TRAINING_TOKENS,
        python=platform.python_version(),
        num_texts=len(texts),
        num_chars=sum(map(len, texts)),
        demo=", ".join(DEMO_PACKAGES),
        command=f"python experiments/pretrain_tiny.py --steps {args.steps} {limit}{options}",
        num_steps=num_steps,
        batch_size=args.batch_size,
        num_tokens=num_steps * args.batch_size * TRAINING_TOKENS,
        wall_minutes=wall_s / 60,
        cpu_minutes=cpu_s / 60,
        threads=args.threads,
        processor=processor_name(),
        torch=torch.__version__,
        held_out=HELD_OUT_SHARE,
        nats=result.nats_per_token,
        bits=result.bits_per_char,
    )
    (args.out / "README.md").write_text(readme, encoding="utf-8")


def main() -> int:
    """Train the tokenizer and the model, score the held-out texts, write the folder and its README."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)  # before the training
    torch.set_num_threads(args.threads)
    texts = pretraining_texts()
    tokenizer = train_tokenizer(texts)
    order = numpy_generator(args.seed, "pretrain/split").permutation(len(texts))
    num_held_out = round(HELD_OUT_SHARE * len(texts))
    held_out = [texts[idx] for idx in order[:num_held_out]]
    documents = encode(tokenizer, [texts[idx] for idx in order[num_held_out:]])
    with torch_stream(args.seed, "pretrain/init"):
        model = build_model(tokenizer)
    print(f"{model.num_parameters():,} parameters, {sum(map(len, documents)):,} training tokens", flush=True)

    start_s, start_cpu_s = time.perf_counter(), time.process_time()

    def progress(step: int) -> float:
        return max(step / float(args.steps), (time.perf_counter() - start_s) / (60 * float(args.minutes)))

    stream = windows(documents, args.seed)
    num_steps = train(model, stream, progress, batch_size=args.batch_size, lr=args.lr, every=args.every)
    wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    result = score(model, encode(tokenizer, held_out), sum(map(len, held_out)))
    print(f"validation: {result.nats_per_token:.3f} nats per token, {result.bits_per_char:.3f} bits per character")

    save(model, tokenizer, args.out)
    write_readme(args, model, texts, num_steps, wall_s=wall_s, cpu_s=cpu_s, result=result)
    return 0


if __name__ == "__main__":
    sys.exit(without_traceback(main))

"""The process of somebody who calls `fedlit.run` from a notebook or a program: lent for a run, then as it was.

A run sets what its bits depend on, whatever the caller has set; afterwards all of this is the caller's again.
"""

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import transformers

LIBRARIES = (
    *("absl", "bitsandbytes", "datasets", "fedlit", "huggingface_hub", "lightning", "lightning.fabric"),
    *("lightning.pytorch", "matplotlib", "nltk", "peft", "PIL", "torch", "torchmetrics", "transformers", "wandb"),
)
"""Loggers that write to the console on their own."""


@contextmanager
def lent_process(*, quiet: bool) -> Iterator[None]:
    """Run the block on torch's defaults, and put back after it what the block or this changed.

    Put back are the environment's variables, warnings filters, levels of loggers, progress bars, the states of
    Python's, NumPy's and torch's global generators, and torch's threads, default type and device, modes and precision.

    Args:
        quiet: nothing of a library's own goes to the console: no warnings, no log below an error, no progress bars.
    """
    with ExitStack() as stack:
        stack.enter_context(_environment())
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(_levels())
        stack.enter_context(_progress_bars())
        stack.enter_context(_generators())
        stack.enter_context(_torch_settings())
        if quiet:
            warnings.simplefilter("ignore")
            for name in LIBRARIES:
                logger = logging.getLogger(name)
                logger.setLevel(max(logger.level, logging.ERROR))
            os.environ["WANDB_SILENT"] = "true"
            transformers.utils.logging.disable_progress_bar()
            if (datasets := sys.modules.get("datasets")) is not None:
                datasets.disable_progress_bars()
        yield


@contextmanager
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _levels() -> Iterator[None]:
    """Put back the levels of all loggers, those of the libraries among them that nobody has asked for yet."""
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    loggers += [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    before = {logger: (logger.level, logger.disabled, logger.propagate) for logger in [logging.root, *loggers]}
    try:
        yield
    finally:
        for logger, (level, disabled, propagate) in before.items():
            logger.setLevel(level)
            logger.disabled, logger.propagate = disabled, propagate


@contextmanager
def _progress_bars() -> Iterator[None]:
    """Put back the progress bars of transformers and of datasets, where that is imported."""
    datasets: Any = sys.modules.get("datasets")
    of_transformers = transformers.utils.logging.is_progress_bar_enabled()
    of_datasets = datasets is not None and not datasets.are_progress_bars_disabled()
    try:
        yield
    finally:
        if of_transformers:
            transformers.utils.logging.enable_progress_bar()
        if of_datasets:
            datasets.enable_progress_bars()


@contextmanager
def _generators() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _torch_settings() -> Iterator[None]:
    """Run the block as a fresh process would."""
    threads, dtype, precision = torch.get_num_threads(), torch.get_default_dtype(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        try:
            torch.set_default_dtype(torch.float32)
            torch.set_float32_matmul_precision("highest")
            torch.use_deterministic_algorithms(False)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            torch.set_float32_matmul_precision(precision)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)

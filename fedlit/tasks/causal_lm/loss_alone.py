"""Texts of which nothing but the loss is measured, beside what a run's own rows are scored by."""

from dataclasses import dataclass

from fedlit.tasks.causal_lm.task import CausalLM


@dataclass(frozen=True, kw_only=True)
class LossAlone(CausalLM):
    """Texts, or prompts and responses, of which nothing but the loss is measured."""

    @property
    def protocol(self) -> str:
        """`loss`, whatever is scored on the run's own rows."""
        return "loss"

"""NVIDIA FLARE: a job made from its FedAvgRecipe, with a ModelAggregator and a script of its client API."""

from fedlit.sites.apps.base import Target

TARGET = Target(name="nvflare", title="NVIDIA FLARE", package="nvflare", tested="2.9", config_in=".")

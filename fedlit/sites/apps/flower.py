"""Flower (flower.ai): a ClientApp, and a ServerApp with a Strategy."""

from fedlit.sites.apps.base import Target

TARGET = Target(name="flower", title="Flower", package="flwr", tested="1.41", config_in="fedlit_app")

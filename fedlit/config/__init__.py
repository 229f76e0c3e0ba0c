"""The configuration of a run: a tree of dataclasses, read from YAML and the command line before torch is imported."""

from fedlit.config.checks import check
from fedlit.config.help import help_text
from fedlit.config.idle import no_effect_warnings
from fedlit.config.launcher import check_launcher
from fedlit.config.loading import CONFIG_DIR, load_config, load_config_from
from fedlit.config.privacy_checks import privacy_warnings
from fedlit.config.record import differences, fingerprint, load_yaml, read_stored, run_folder, to_yaml
from fedlit.config.schema import (
    ComputeConfig,
    DataConfig,
    EvalConfig,
    LocalConfig,
    LoggingConfig,
    MethodConfig,
    ModelConfig,
    PartitionConfig,
    PrivacyConfig,
    RunConfig,
    RunFolderConfig,
    ServerConfig,
)
from fedlit.config.sweep import Cell, Sweep, load_sweep

__all__ = [
    "CONFIG_DIR",
    "Cell",
    "ComputeConfig",
    "DataConfig",
    "EvalConfig",
    "LocalConfig",
    "LoggingConfig",
    "MethodConfig",
    "ModelConfig",
    "PartitionConfig",
    "PrivacyConfig",
    "RunConfig",
    "RunFolderConfig",
    "ServerConfig",
    "Sweep",
    "check",
    "check_launcher",
    "differences",
    "fingerprint",
    "help_text",
    "load_config",
    "load_config_from",
    "load_sweep",
    "load_yaml",
    "no_effect_warnings",
    "privacy_warnings",
    "read_stored",
    "run_folder",
    "to_yaml",
]

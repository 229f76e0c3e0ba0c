"""fedlit: federated fine-tuning of foundation models, exact and reproducible."""

__version__ = "0.1.0"

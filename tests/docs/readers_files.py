"""Files that a page names and does not show, because the reader has his own: page, name, content."""

READERS_FILES: dict[str, dict[str, str]] = {
    "docs/methods/index.md": {"hospitals.yaml": "model: tiny\npartition.validation_fraction: 0.1\n"},
    "docs/howto/configuration.md": {"my_data.yaml": "name: mine\n"},
}

"""The table of a sweep or of some runs: our scores over seeds beside the published ones, tests, files, figures."""

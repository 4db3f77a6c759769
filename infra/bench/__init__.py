"""Measurements: each figure beside the bare limit of the same work on the same machine, see `python -m infra.bench`."""

"""Serving: a model artifact behind `/ping` and `/invocations`, and predictions of files."""

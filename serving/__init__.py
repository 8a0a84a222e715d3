"""The serving image's program: a model artifact behind `/ping` and `/invocations`."""

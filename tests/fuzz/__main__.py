"""Coverage-guided fuzzing: `python -m tests.fuzz TARGET [-max_total_time=60]`, with what libFuzzer takes.

Bytes that break a target are written to the current folder; once mended, they belong into the target's corpus.
"""

import logging
import sys

import atheris

with atheris.instrument_imports(include=["container", "serving", "tests.fuzz.targets"]):
    from tests.fuzz.targets import CORPUS, TARGETS


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"{__doc__}\nTargets: {', '.join(TARGETS)}")
    name = sys.argv.pop(1)
    logging.disable()
    atheris.Setup([*sys.argv, str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()

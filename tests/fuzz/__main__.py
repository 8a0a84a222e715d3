"""Coverage-guided fuzzing: `python -m tests.fuzz TARGET [-max_total_time=60]`, with what libFuzzer takes.

Inputs that it finds are kept in build/fuzz for the next run, and so are inputs that break a target; once the bug is
fixed, add those to the corpus.
"""

import logging
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lstm_fcn.container", "lstm_fcn.serving", "tests.fuzz.targets"]):
    from tests.fuzz.targets import CORPUS, TARGETS


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"{__doc__}\nTargets: {', '.join(TARGETS)}")
    name = sys.argv.pop(1)
    logging.disable()
    found = Path("build") / "fuzz" / name
    found.mkdir(parents=True, exist_ok=True)
    folders = [f"-artifact_prefix={found.parent}/", str(found), str(CORPUS / name)]
    atheris.Setup([*sys.argv, *folders], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""Where data comes from: pipes, packed files, folders in folders, one machine's share of the files."""

import gzip
from pathlib import Path

import pytest

from tests.programs import (
    TrainingJob,
    assert_all_refused,
    assert_succeeded,
    labelled_csv,
    offer_pipe,
    run_all,
)

HEADER = "y," + ",".join(f"x{k}" for k in range(16)) + "\n"
ROWS = labelled_csv(12, labels=("0", "1")).splitlines(keepends=True)
VALIDATION = labelled_csv(6, labels=("0", "1"), seed=1)


def prepare(root: Path, settings: dict[str, str]) -> TrainingJob:
    """A job without data; its channels are of these settings."""
    job = TrainingJob(root).set()
    job.write("input/config/inputdataconfig.json", {"training": settings, "validation": settings})
    return job


def offer(job: TrainingJob, channel: str, data: bytes, delay: float = 0.0) -> None:
    """The platform's pipes for the first pass and the second one; ours reads the first one only."""
    for number in range(2):
        offer_pipe(job.root / "input" / "data" / f"{channel}_{number}", data, delay)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """The job with one file in each channel."""
    job = TrainingJob(tmp_path_factory.mktemp("file")).prepare(HEADER + "".join(ROWS), HEADER + VALIDATION)
    (result,) = run_all([job])
    assert_succeeded(job, result)
    return job


def test_pipes_and_packed_files_and_folders_hold_the_same_data(expected: TrainingJob, tmp_path: Path) -> None:
    piped = prepare(tmp_path / "piped", {"TrainingInputMode": "Pipe"})
    # Two files, the second with its own header; the pipes appear when the program waits for them already.
    offer(piped, "training", (HEADER + "".join(ROWS[:5]) + HEADER + "".join(ROWS[5:])).encode(), delay=8.0)
    offer(piped, "validation", gzip.compress((HEADER + VALIDATION).encode()))

    settings = {"TrainingInputMode": "FastFile", "S3DistributionType": "ShardedByS3Key"}
    packed = prepare(tmp_path / "packed", settings)
    packed.write("input/data/training/1/a.csv.gz", gzip.compress((HEADER + "".join(ROWS[:5])).encode()))
    packed.write("input/data/training/2/deep/b.csv", HEADER + "".join(ROWS[5:]).rstrip("\n"))
    packed.write("input/data/training/_SUCCESS", "")
    packed.write("input/data/training/empty/c.csv", "")
    packed.write("input/data/training-manifest", "[]")
    halves = [gzip.compress(text.encode()) for text in (HEADER + VALIDATION[:300], VALIDATION[300:])]
    packed.write("input/data/validation/v.csv.gz", b"".join(halves))  # gzip files put together are one

    for job, result in zip((piped, packed), run_all((piped, packed)), strict=True):
        assert_succeeded(job, result)
        assert job.read("weights.safetensors") == expected.read("weights.safetensors")
        assert job.read("model.onnx") == expected.read("model.onnx")
        words = "a pipe" if job is piped else "2 file(s)"
        assert f"training: 12 series of 16 values from {words}\n" in result.stdout


def test_data_that_breaks_off(tmp_path: Path) -> None:
    pipe, file, empty, nothing = (
        prepare(tmp_path / name, {"TrainingInputMode": mode})
        for name, mode in (("pipe", "Pipe"), ("file", "File"), ("empty", "Pipe"), ("nothing", "FastFile"))
    )
    whole = gzip.compress((HEADER + "".join(ROWS)).encode())
    offer(pipe, "training", HEADER.encode() + b"0,1,2")
    file.write("input/data/training/a.csv.gz", whole[:-20])
    offer(empty, "training", b"")
    nothing.write("input/data/training/_SUCCESS", "")
    for job in (file, nothing):
        job.write("input/data/validation/v.csv", HEADER + VALIDATION)
    assert_all_refused(
        [
            (pipe, "training_0, row 2 has 3 cells, but the header names 17 columns."),
            (file, "a.csv.gz is not a complete gzip file: "),
            (empty, "Channel training has no data"),
            (nothing, "Channel training has no data: "),
        ]
    )

"""Which files of a folder are this machine's: by option, and by the environment of array and Processing jobs."""

import json
from pathlib import Path
from typing import Any

import pytest

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.shards import Shard, find_shard

FILES = [Path(str(number)) for number in range(10)]


@pytest.mark.parametrize("count", [1, 2, 7, 10, 11])
def test_every_file_is_in_one_shard(count: int) -> None:
    found = [file for index in range(count) for file in find_shard(f"{index}/{count}", Path()).of(FILES)]
    assert sorted(found) == FILES


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        (None, {}, Shard()),
        (None, {"AWS_BATCH_JOB_ARRAY_INDEX": "2", "AWS_BATCH_JOB_ARRAY_SIZE": "7"}, Shard(2, 7)),
        ("/7", {"JOB_COMPLETION_INDEX": "0"}, Shard(0, 7)),
        ("3/4", {"AWS_BATCH_JOB_ARRAY_INDEX": "2", "AWS_BATCH_JOB_ARRAY_SIZE": "7"}, Shard(3, 4)),
    ],
)
def test_option_and_array_jobs(text: str | None, environment: dict[str, str], expected: Shard, tmp_path: Path) -> None:
    assert find_shard(text, Path(), environment | {"SAGEMAKER_BASE_DIR": str(tmp_path)}) == expected


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("7/7", {}, "There is no shard 7/7; of seven, the first is 0/7 and the last is 6/7."),
        ("-1/7", {}, "There is no shard -1/7"),
        ("1 of 7", {}, "There is no shard 1 of 7"),
        ("0/0", {}, "There is no shard 0/0"),
        ("/7", {}, "takes the number of the job from AWS_BATCH_JOB_ARRAY_INDEX or JOB_COMPLETION_INDEX; neither is"),
        (None, {"JOB_COMPLETION_INDEX": "3"}, "This is number 3 of several jobs; say of how many: --shard /7"),
        ("/2", {"JOB_COMPLETION_INDEX": "3"}, "There is no shard 3/2"),
    ],
)
def test_shards_that_do_not_exist(text: str | None, environment: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        find_shard(text, Path(), environment)
    assert message in str(caught.value)


def test_hosts_of_a_processing_job(tmp_path: Path) -> None:
    def shard(source: str, host: str = "algo-2") -> Shard:
        write(tmp_path, "resourceconfig.json", {"current_host": host, "hosts": ["algo-2", "algo-1", "algo-3"]})
        return find_shard(None, tmp_path / source, {"SAGEMAKER_BASE_DIR": str(tmp_path)})

    assert [shard("all", f"algo-{k}") for k in (1, 2, 3)] == [Shard(0, 3), Shard(1, 3), Shard(2, 3)]
    channels = [channel(tmp_path / "all", "FullyReplicated"), channel(tmp_path / "part", "ShardedByS3Key")]
    write(tmp_path, "processingjobconfig.json", {"ProcessingInputs": channels})
    assert shard("all/2026") == Shard(1, 3)
    assert shard("part/2026") == Shard()  # the platform has divided it
    assert shard("all", "stranger") == Shard()


def test_a_broken_file_of_the_platform(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "resourceconfig.json").write_text("{")
    with pytest.raises(UserError, match=r"resourceconfig\.json cannot be read as JSON"):
        find_shard(None, Path(), {"SAGEMAKER_BASE_DIR": str(tmp_path)})


def channel(folder: Path, distribution: str) -> dict[str, Any]:
    return {"InputName": "series", "S3Input": {"LocalPath": str(folder), "S3DataDistributionType": distribution}}


def write(root: Path, name: str, content: dict[str, Any]) -> None:
    (root / "config").mkdir(exist_ok=True)
    (root / "config" / name).write_text(json.dumps(content))

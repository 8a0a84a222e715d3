import errno
import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lstm_fcn.container.errors import UserError
from lstm_fcn.training.checkpoint import Checkpoint, Checkpoints, share
from lstm_fcn.training.distributed import Group
from tests.unit.groups import run_together

FINGERPRINT = {"epochs": 5, "lr": 0.1, "data": "0123", "data classes": ["a", "b"], "processes": 1}


def make(number: int = 0) -> Checkpoint:
    tensors = {
        "weights": torch.arange(6.0).reshape(2, 3) + number,
        "image": torch.randn(2, 3, 1, 4).to(memory_format=torch.channels_last),
        "totals": torch.tensor([1.5, 2.5], dtype=torch.float64),
        "random": torch.tensor([0, 7, 255], dtype=torch.uint8),
        "steps": torch.tensor(3.0),
        "nothing": torch.empty(0, 2),
        "count": torch.tensor([2**62]),
    }
    return Checkpoint(tensors, {"epoch": number, "loss": math.inf, "nested": {"lr": 0.1, "list": [1, None]}})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path, FINGERPRINT)


def test_what_is_saved_is_loaded(checkpoints: Checkpoints) -> None:
    saved = make()
    checkpoints.save("1", saved)
    loaded = checkpoints.load_newest()
    assert loaded is not None
    assert json.dumps(loaded.state) == json.dumps(saved.state)  # in the same order: model.json repeats it
    assert sorted(loaded.tensors) == sorted(saved.tensors)
    for name, tensor in saved.tensors.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor)


def test_no_checkpoint(checkpoints: Checkpoints) -> None:
    assert checkpoints.load_newest() is None


def test_another_run_of_the_same_job_finds_it(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save("1", make(1))
    # The order of names is that of a dictionary, and tuples become lists: neither makes it another job.
    again = dict(reversed(FINGERPRINT.items())) | {"data classes": ("a", "b")}
    found = Checkpoints(tmp_path, again).load_newest()
    assert found is not None
    assert found.state["epoch"] == 1


def test_the_two_newest_are_kept(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for number in range(9, 13):
        checkpoints.save(f"{number:03d}", make(number))
    assert names(tmp_path) == ["lstm-fcn-011.safetensors", "lstm-fcn-012.safetensors"]
    loaded = checkpoints.load_newest()
    assert loaded is not None
    assert loaded.state["epoch"] == 12


def test_the_same_place_again_replaces_the_checkpoint(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save("1", make(1))
    checkpoints.save("1", make(2))
    assert names(tmp_path) == ["lstm-fcn-1.safetensors"]
    loaded = checkpoints.load_newest()
    assert loaded is not None
    assert loaded.state["epoch"] == 2


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[-3:]
    elif how == "empty":
        content.clear()
    elif how == "tensors":
        content[-1] ^= 1
    elif how == "state":
        content = content.replace(b'epoch\\": 2', b'epoch\\": 3')
    elif how == "header":
        content[20] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "empty", "tensors", "state", "header"])
def test_where_the_newest_is_damaged_an_earlier_one_is_taken(
    checkpoints: Checkpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    checkpoints.save("1", make(1))
    checkpoints.save("2", make(2))
    before = (tmp_path / "lstm-fcn-2.safetensors").read_bytes()
    damage(tmp_path / "lstm-fcn-2.safetensors", how)
    assert (tmp_path / "lstm-fcn-2.safetensors").read_bytes() != before
    loaded = checkpoints.load_newest()
    assert loaded is not None
    assert loaded.state["epoch"] == 1
    (message,) = caplog.messages
    assert message.startswith(f"WARNING: checkpoint {tmp_path / 'lstm-fcn-2.safetensors'} is damaged (")
    assert message.endswith("); trying the one before it")
    assert caplog.records[0].levelno == logging.WARNING


def test_a_file_of_another_program_is_reported_as_damaged(
    checkpoints: Checkpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "lstm-fcn-9.safetensors")
    assert checkpoints.load_newest() is None
    assert "lstm-fcn-9.safetensors is damaged" in caplog.text


def test_where_all_are_damaged_there_is_none(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for number in (1, 2):
        checkpoints.save(str(number), make(number))
        damage(tmp_path / f"lstm-fcn-{number}.safetensors", "tensors")
    assert checkpoints.load_newest() is None


def test_damaged_ones_do_not_crowd_out_the_one_that_was_just_written(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for number in (8, 9):
        checkpoints.save(str(number), make(number))
        damage(tmp_path / f"lstm-fcn-{number}.safetensors", "tensors")
    checkpoints.save("1", make(1))
    loaded = checkpoints.load_newest()
    assert loaded is not None
    assert loaded.state["epoch"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"epochs": 6},
            r"belongs to another job: it has epochs=5 instead of 6\. Restart that job with its configuration",
        ),
        ({"epochs": 6, "lr": 0.2}, r"it has epochs=5 instead of 6; lr=0\.1 instead of 0\.2\."),
        ({"data": "4567"}, r"it has different data\."),
        ({"data classes": ["a", "c"]}, r"it has different data classes\."),
        ({"processes": 2}, r"it has processes=1 instead of 2\."),
        ({"patience": 0}, r"it has patience=None instead of 0\."),
    ],
)
def test_a_checkpoint_of_another_job_is_refused(
    checkpoints: Checkpoints, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    checkpoints.save("1", make())
    with pytest.raises(UserError, match=message):
        Checkpoints(tmp_path, FINGERPRINT | change).load_newest()


def test_what_an_interrupted_save_has_left_is_ignored_and_removed(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save("1", make(1))
    (tmp_path / ".lstm-fcn-2.safetensors.sagemaker-ignore").write_bytes(b"half of it")
    (tmp_path / "of the user").write_bytes(b"")
    loaded = checkpoints.load_newest()
    assert loaded is not None
    assert loaded.state["epoch"] == 1
    checkpoints.remove_partial()
    assert names(tmp_path) == ["lstm-fcn-1.safetensors", "of the user"]


def test_when_the_job_is_done_nothing_of_it_is_left(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save("1", make(1))
    checkpoints.save("2", make(2))
    (tmp_path / "of the user.safetensors").write_bytes(b"")
    checkpoints.remove_all()
    assert names(tmp_path) == ["of the user.safetensors"]


def test_a_full_disk_is_reported_and_leaves_nothing_behind(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save("1", make(1))

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(
        UserError, match=r"lstm-fcn-2\.safetensors cannot be written: No space left on device\. Earlier"
    ):
        checkpoints.save("2", make(2))
    assert names(tmp_path) == ["lstm-fcn-1.safetensors"]


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written: File exists"):
        Checkpoints(tmp_path / "file", FINGERPRINT).save("1", make())


def test_alone_a_process_keeps_what_it_has() -> None:
    checkpoint = make()
    assert share(checkpoint, Group()) is checkpoint
    assert share(None, Group()) is None


def test_all_processes_resume_from_the_checkpoint_of_the_first() -> None:
    checkpoint = make(3)
    for found in run_together(3, lambda group: share(checkpoint if group.is_first else None, group)):
        assert found is not None
        assert found.state == checkpoint.state
        assert set(found.tensors) == set(checkpoint.tensors)
        assert all(torch.equal(found.tensors[name], tensor) for name, tensor in checkpoint.tensors.items())


def test_where_the_first_has_none_no_process_has_one() -> None:
    assert run_together(2, lambda group: share(None, group)) == [None, None]

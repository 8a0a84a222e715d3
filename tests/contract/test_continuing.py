"""The channel `model`: continuing training from the model of an earlier job (T70, T71)."""

import io
import re
import tarfile
from pathlib import Path

import pytest

from lstm_fcn.container import artifact
from lstm_fcn.container.metrics import METRICS
from tests.programs import (
    MODEL_FILES,
    SMALL,
    Result,
    TrainingJob,
    assert_all_refused,
    assert_succeeded,
    labelled_csv,
    run_all,
)

LEARNED = {"epochs": "60", "lr": "0.02", "lr_schedule": "plateau", "dropout": "0"}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingJob, Result]:
    """A job that has learned its data."""
    job = TrainingJob(tmp_path_factory.mktemp("earlier")).prepare(labelled_csv(40), **LEARNED)
    (result,) = run_all([job])
    assert_succeeded(job, result)
    return job, result


def pack(folder: Path, prefix: str = "") -> bytes:
    """The model in `folder` as a model.tar.gz."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name in MODEL_FILES:
            archive.add(folder / name, prefix + name)
    return target.getvalue()


def pack_strange(member: tarfile.TarInfo) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        archive.addfile(member)
    return target.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, to
    return made


def loss(line: str) -> float:
    (text,) = re.findall(METRICS[0].regex, line)
    return float(text)


@pytest.mark.checklist("48: training continues from the model.tar.gz in the channel `model`")
def test_training_continues_from_a_model(earlier: tuple[TrainingJob, Result], tmp_path: Path) -> None:
    model = earlier[0].model
    # The same data, as the platform's training jobs hand a model on.
    same = TrainingJob(tmp_path / "same").prepare(labelled_csv(40), **(LEARNED | {"epochs": "2", "lr": "0.001"}))
    same.write("input/data/model/model.tar.gz", pack(model, "./"))
    same.write(
        "input/config/inputdataconfig.json",
        {"training": {"TrainingInputMode": "File"}, "model": {"TrainingInputMode": "File"}},
    )
    # Other classes, from files; and hyperparameters that the model does not have.
    classes = TrainingJob(tmp_path / "classes").prepare(labelled_csv(30, labels=("a", "b", "c")))
    classes.write("input/config/hyperparameters.json", SMALL | {"filters-1": "5", "scaling": "series", "lr": "0.02"})
    for name in MODEL_FILES:
        classes.write(f"input/data/model/job/{name}", (model / name).read_bytes())
    # Another length; and no word about the architecture.
    length = TrainingJob(tmp_path / "length").prepare(labelled_csv(20, length=24))
    length.write("input/config/hyperparameters.json", {"epochs": "1"})
    length.write("input/data/model/model.tgz", pack(model, "out/"))

    results = run_all((same, classes, length))
    for job, result in zip((same, classes, length), results, strict=True):
        assert_succeeded(job, result)
        assert re.search(r"^earlier model: 2 classes, length 16, from ", result.stdout, re.MULTILINE)
        assert artifact.load(job.model)[0].hyperparameters["filters-1"] == int(SMALL["filters-1"])
    first, last = loss(results[0].metric_lines()[0]), loss(earlier[1].metric_lines()[-1])
    assert first == pytest.approx(last, abs=0.1)
    assert loss(earlier[1].metric_lines()[0]) > last + 0.3
    said = [
        re.findall(r"^weights kept from the earlier model: (.*)$", result.stdout, re.MULTILINE) for result in results
    ]
    assert said == [
        ["convolutions, recurrent block, output layer; new: nothing; scaling: kept"],
        ["convolutions, recurrent block; new: output layer (different classes); scaling: recomputed"],
        ["convolutions, output layer; new: recurrent block (length 24, was 16); scaling: recomputed"],
    ]
    assert artifact.load(classes.model)[0].problem.classes == ("a", "b", "c")
    assert artifact.load(length.model)[0].problem.length == 24
    warnings = [line for line in results[1].stdout.splitlines() if line.startswith("WARNING")]
    assert warnings == [
        "WARNING: ignoring filters-1=5: the earlier model uses 4",
        "WARNING: ignoring scaling=series: the earlier model uses dataset",
    ]
    assert "WARNING" not in results[0].stdout + results[2].stdout


@pytest.mark.checklist("48: an archive with `..`, absolute paths or links is refused")
def test_archives_that_are_refused(earlier: tuple[TrainingJob, Result], tmp_path: Path) -> None:
    model = earlier[0].model
    whole = pack(model)
    cases: list[tuple[dict[str, bytes], str]] = [
        ({"model.tar.gz": pack_strange(member("/etc/model.json"))}, "'/etc/model.json' would be outside of the arch"),
        ({"model.tar.gz": pack_strange(member("../model.json"))}, "'../model.json' would be outside of the archive; "),
        (
            {"model.tar.gz": pack_strange(member("weights.safetensors", tarfile.LNKTYPE, "model.json"))},
            "'weights.safetensors' is a link or a device; the archive was not read.",
        ),
        ({"model.tar.gz": whole[: len(whole) // 2]}, "model.tar.gz is not a complete tar archive: "),
        (
            {"model.tar.gz": pack_strange(member("model.onnx"))},
            "model.tar.gz holds no model.json. Put the model.tar.gz",
        ),
        ({"model.tar.gz": whole, "other.tar.gz": whole}, "Channel model has 2 archives; it must hold a single model."),
        (
            {"model.json": (model / "model.json").read_bytes(), "weights.safetensors": b"x"},
            "is damaged: its checksum differs from model.json.",
        ),
        ({"_SUCCESS": b"x"}, "Channel model has no data: "),
    ]
    jobs = [TrainingJob(tmp_path / str(number)).prepare() for number in range(len(cases))]
    for job, (files, _) in zip(jobs, cases, strict=True):
        for name, content in files.items():
            job.write(f"input/data/model/{name}", content)
    assert_all_refused(zip(jobs, [message for _, message in cases], strict=True))

"""The shortest way through both programs: one training, one request."""

from pathlib import Path

from lstm_fcn.benchmarks.programs import endpoint, labelled_csv, without_labels
from tests.programs import TrainingJob, assert_succeeded


def test_a_trained_model_predicts_the_classes_of_its_series(tmp_path: Path) -> None:
    job = TrainingJob(tmp_path).prepare(epochs="60", lr="0.02")
    assert_succeeded(job, job.run(program=True))
    with endpoint(tmp_path) as server:
        response = server.invoke(without_labels(labelled_csv(6, seed=1)))
    assert (response.status, response.text.split("\n")) == (200, ["up", "down"] * 3)

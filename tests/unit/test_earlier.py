import io
import json
import logging
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from lstm_fcn.container import artifact
from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.channels import Source
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.container.problem import Problem, Scaling, Task
from lstm_fcn.training.earlier import EarlierModel, load_earlier
from lstm_fcn.training.explain import load_classifier
from lstm_fcn.training.export import export_weights
from lstm_fcn.training.network.model import LSTMFCN, Classifier, Ensemble, Scaler, make_network

LENGTH = 12
CLASSES = ("a", "b", "c")
SCALING = Scaling(method="dataset", mean=(1.5,), std=(2.0,))
HYPERPARAMETERS = {"hidden-size": 2, "filters-1": 3, "filters-2": 4, "filters-3": 3, "scaling": "dataset"}


def make_small(length: int = LENGTH, classes: int = 3, seed: int = 1) -> LSTMFCN:
    torch.manual_seed(seed)
    network = LSTMFCN(length, classes, hidden_size=2, filters=(3, 4, 3))
    for name, buffer in network.named_buffers():  # as after training
        if "running" in name:
            buffer.uniform_(0.5, 2)
    return network


def make_problem(
    length: int = LENGTH, classes: tuple[str, ...] = CLASSES, task: Task = "multiclass", variables: int = 1
) -> Problem:
    return Problem(task=task, classes=classes, length=length, num_variables=variables, scaling=SCALING)


def save_model(
    folder: Path,
    problem: Problem | None = None,
    hyperparameters: dict[str, Any] | None = None,
    network: LSTMFCN | Ensemble | None = None,
) -> Path:
    """Write the files of a model."""
    metadata = Metadata(
        problem=problem or make_problem(), hyperparameters=hyperparameters or HYPERPARAMETERS, metrics={}, versions={}
    )
    artifact.save(folder, metadata, b"graph", export_weights(Classifier(Scaler(SCALING), network or make_small())))
    return folder


def source(folder: Path) -> Source:
    return Source("model", folder, tuple(sorted(path for path in folder.rglob("*") if path.is_file())))


def pack(path: Path, files: dict[str, bytes], mode: str = "w:gz", *others: tarfile.TarInfo) -> Source:
    """A channel of one archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in others:
            archive.addfile(member)
    return source(path.parent)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "saved")


@pytest.fixture
def files(model: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in model.iterdir()}


class TestLoading:
    @staticmethod
    def assert_whole(earlier: EarlierModel) -> None:
        assert (earlier.metadata.problem.classes, earlier.metadata.problem.length) == (CLASSES, LENGTH)
        expected = make_small().state_dict()
        assert all(torch.equal(earlier.weights[f"network.{name}"], tensor) for name, tensor in expected.items())

    def test_files_as_they_are(self, model: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self.assert_whole(load_earlier(source(model)))
        assert caplog.messages == [f"earlier model: 3 classes, length {LENGTH}, from {model}"]

    @pytest.mark.parametrize(
        ("name", "mode"),
        [("model.tar.gz", "w:gz"), ("m.tgz", "w:gz"), ("m.tar", "w"), ("m.tar.gz", "w"), ("m.tar", "w:xz")],
    )
    @pytest.mark.parametrize("prefix", ["", "./", "model/", "./a/b/"])
    def test_an_archive(self, tmp_path: Path, files: dict[str, bytes], name: str, mode: str, prefix: str) -> None:
        members = {prefix + member: content for member, content in files.items()}
        folder = tarfile.TarInfo("./a")
        folder.type = tarfile.DIRTYPE
        channel = pack(tmp_path / "channel" / name, members | {"strangers.py": b"x"}, mode, folder)
        self.assert_whole(load_earlier(channel))
        assert [path.name for path in (tmp_path / "channel").iterdir()] == [name]  # nothing is unpacked

    def test_files_in_a_sub_folder(self, model: Path) -> None:
        self.assert_whole(load_earlier(source(model.parent)))

    def test_the_checksum_is_that_of_the_weights(self, model: Path) -> None:
        earlier = load_earlier(source(model))
        assert earlier.sha256 == earlier.metadata.sha256["weights.safetensors"]

    @pytest.mark.parametrize("name", ["/model.json", "../model.json", "a/../../model.json", "/etc/x", "..", "a/.."])
    def test_members_that_would_lie_outside_are_refused(
        self, tmp_path: Path, files: dict[str, bytes], name: str
    ) -> None:
        channel = pack(tmp_path / "channel" / "model.tar.gz", files | {name: b"x"})
        with pytest.raises(
            UserError, match=r"model\.tar\.gz is unsafe: its member '.*' would be outside of the archive; the"
        ):
            load_earlier(channel)

    @pytest.mark.parametrize(
        "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
    )
    @pytest.mark.parametrize("name", ["model.json", "else"])
    def test_links_and_devices_are_refused(
        self, tmp_path: Path, files: dict[str, bytes], kind: bytes, name: str
    ) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "weights.safetensors"
        kept = {key: content for key, content in files.items() if key != name}
        channel = pack(tmp_path / "channel" / "model.tar.gz", kept, "w:gz", member)
        with pytest.raises(UserError, match=f"its member '{name}' is a link or a device; the archive was not"):
            load_earlier(channel)

    def test_two_models_in_one_archive_are_refused(self, tmp_path: Path, files: dict[str, bytes]) -> None:
        twice = files | {f"old/{name}": content for name, content in files.items()}
        with pytest.raises(UserError, match=r"several files (model\.json|weights\.safetensors); the archive was not"):
            load_earlier(pack(tmp_path / "channel" / "model.tar.gz", twice))

    def test_two_archives_are_refused(self, tmp_path: Path, files: dict[str, bytes]) -> None:
        pack(tmp_path / "channel" / "1.tar.gz", files)
        with pytest.raises(UserError, match="Channel model has 2 archives; it must hold a single"):
            load_earlier(pack(tmp_path / "channel" / "2.tar.gz", files))

    def test_two_models_in_folders_are_refused(self, tmp_path: Path) -> None:
        for name in ("1", "2"):
            save_model(tmp_path / name)
        with pytest.raises(UserError, match=r"Channel model: .* holds several files model\.json; it must"):
            load_earlier(source(tmp_path))

    def test_a_file_that_is_too_large_is_not_read(
        self, tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lstm_fcn.container.archive.LARGEST_FILE", 2000)
        with pytest.raises(UserError, match=r"holds a file weights\.safetensors of \d+ bytes; the archive was not"):
            load_earlier(pack(tmp_path / "channel" / "model.tar.gz", files))

    @pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
    @pytest.mark.parametrize("packed", [False, True])
    def test_a_missing_file_is_named(
        self, tmp_path: Path, model: Path, files: dict[str, bytes], name: str, packed: bool
    ) -> None:
        (model / name).unlink()
        del files[name]
        channel = pack(tmp_path / "channel" / "model.tar.gz", files) if packed else source(model)
        with pytest.raises(
            UserError, match=rf"Channel model: .* holds no {name}\. Put the model\.tar\.gz of an earlier"
        ):
            load_earlier(channel)

    @pytest.mark.parametrize("content", [b"", b"no archive at all" * 100])
    def test_what_is_no_archive_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "model.tar.gz").write_bytes(content)
        with pytest.raises(UserError, match=r"(?s)is not a complete tar archive: .*; the archive was not"):
            load_earlier(source(tmp_path))

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    @pytest.mark.parametrize("damage", ["truncated", "changed"])
    def test_a_damaged_archive_is_refused(
        self, tmp_path: Path, files: dict[str, bytes], share: float, damage: str
    ) -> None:
        channel = pack(tmp_path / "channel" / "model.tar.gz", files)
        content = bytearray(channel.files[0].read_bytes())
        place = int(share * len(content))
        if damage == "truncated":
            del content[place:]
        else:
            content[place : place + 8] = bytes(8 * [0xAA])
        channel.files[0].write_bytes(content)
        with pytest.raises(UserError, match="Channel model: "):
            load_earlier(channel)

    def test_damaged_weights_are_refused(self, model: Path) -> None:
        path = model / "weights.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
        with pytest.raises(UserError, match=r"weights\.safetensors in .* is damaged: its checksum differs from model"):
            load_earlier(source(model))

    def test_weights_of_another_format_are_refused(self, model: Path) -> None:
        metadata, graph = artifact.load(model)
        artifact.save(model, metadata, graph, b"pickle")
        with pytest.raises(UserError, match=r"Channel model: weights\.safetensors in .* cannot be read: "):
            load_earlier(source(model))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"schema_version": 4}, "schema version 4 is not supported; this release reads version 1"),
            ({"problem": {}}, r"model\.json is damaged: problem\.task: "),
        ],
    )
    def test_metadata_that_cannot_be_used(self, model: Path, change: dict[str, Any], message: str) -> None:
        path = model / "model.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(UserError, match=message):
            load_earlier(source(model))


class TestCarryingOver:
    @staticmethod
    def carry_over(model: Path, network: LSTMFCN, problem: Problem) -> set[str]:
        """The parts of `network` that are those of the earlier model afterwards; the others must be as they were."""
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        earlier = make_small().state_dict()
        load_earlier(source(model)).carry_over(network, problem)
        kept: dict[str, set[bool]] = {}
        for name, tensor in network.state_dict().items():
            taken = tensor.shape == earlier[name].shape and torch.equal(tensor, earlier[name])
            assert taken or torch.equal(tensor, before[name])
            same_anyway = torch.equal(tensor, before[name]) and taken
            if not same_anyway:
                kept.setdefault(name.split(".")[0], set()).add(taken)
        assert all(len(answers) == 1 for answers in kept.values())
        return {part for part, answers in kept.items() if answers == {True}}

    def test_data_like_before_takes_all(self, model: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        network = make_small(seed=2)
        assert self.carry_over(model, network, make_problem()) == {"fcn", "recurrent", "linear"}
        assert caplog.messages[-1] == (
            "weights kept from the earlier model: convolutions, recurrent block, output layer; new: nothing; "
            "scaling: kept"
        )
        series = torch.randn(3, 1, LENGTH)
        assert torch.equal(network.eval()(series), make_small().eval()(series))

    @pytest.mark.parametrize("classes", [("a", "b", "d"), ("a", "b"), ("c", "b", "a")])
    def test_other_classes_get_a_new_output_layer(
        self, model: Path, caplog: pytest.LogCaptureFixture, classes: tuple[str, ...]
    ) -> None:
        caplog.set_level(logging.INFO)
        network = make_small(classes=len(classes), seed=2)
        assert self.carry_over(model, network, make_problem(classes=classes)) == {"fcn", "recurrent"}
        assert "convolutions, recurrent block; new: output layer (different classes); scaling: kept" in caplog.text

    def test_series_of_another_length_get_a_new_recurrent_block(
        self, model: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        network = make_small(length=20, seed=2)
        assert self.carry_over(model, network, make_problem(length=20)) == {"fcn", "linear"}
        assert "convolutions, output layer; new: recurrent block (length 20, was 12)" in caplog.text

    def test_the_convolutions_fit_any_data(self, model: Path) -> None:
        network = make_small(length=20, classes=2, seed=2)
        assert self.carry_over(model, network, make_problem(20, ("x", "y"), "binary")) == {"fcn"}

    def test_independent_classes_get_a_new_output_layer(self, model: Path) -> None:
        assert "linear" not in self.carry_over(model, make_small(seed=2), make_problem(task="multilabel"))

    def test_two_classes_are_the_same_whether_they_are_called_binary_or_multiclass(self, tmp_path: Path) -> None:
        model = save_model(tmp_path, make_problem(classes=("a", "b")), network=make_small(classes=2))
        network = make_small(classes=2, seed=2)
        load_earlier(source(model)).carry_over(network, make_problem(classes=("a", "b"), task="binary"))
        assert torch.equal(network.linear.weight, make_small(classes=2).linear.weight)

    def test_recomputed_scaling_is_logged(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        problem = make_problem().model_copy(update={"scaling": Scaling(method="series")})
        model = save_model(tmp_path, problem)
        self.carry_over(model, make_small(seed=2), make_problem())
        assert caplog.text.rstrip().endswith("scaling: recomputed")

    def test_weights_that_do_not_fit_the_metadata_are_refused(self, tmp_path: Path) -> None:
        earlier = load_earlier(source(save_model(tmp_path, make_problem(length=20))))
        with pytest.raises(
            UserError, match=r"weights\.safetensors does not fit model\.json: network\.recurrent\.0\.weight_ih_l0"
        ):
            earlier.carry_over(make_small(length=20), make_problem(length=20))

    def test_weights_that_are_missing_are_refused(self, model: Path) -> None:
        earlier = load_earlier(source(model))
        del earlier.weights["network.linear.bias"]
        with pytest.raises(UserError, match=r"does not fit model\.json: network\.linear\.bias should be \(3,\)"):
            earlier.carry_over(make_small(), make_problem())

    def test_the_network_trains_on(self, model: Path) -> None:
        network = make_small(seed=2)
        load_earlier(source(model)).carry_over(network, make_problem())
        logits: Tensor = network.train()(torch.randn(4, 1, LENGTH))
        torch.autograd.backward(logits.sum())
        assert network.linear.weight.grad is not None


class TestArchitecture:
    def test_it_is_that_of_the_earlier_model(self, model: Path, caplog: pytest.LogCaptureFixture) -> None:
        settings = load_earlier(source(model)).take_architecture(parse_hyperparameters({"epochs": "7"}))
        assert (settings.hidden_size, settings.filters_2, settings.num_layers) == (2, 4, 1)
        assert settings.epochs == 7
        assert "WARNING" not in caplog.text

    def test_ignored_hyperparameters_are_logged(self, model: Path, caplog: pytest.LogCaptureFixture) -> None:
        given = parse_hyperparameters({"filters-1": "99", "scaling": "series", "filters-2": "4"})
        settings = load_earlier(source(model)).take_architecture(given)
        assert (settings.filters_1, settings.scaling) == (3, "dataset")
        assert caplog.messages == [
            "WARNING: ignoring filters-1=99: the earlier model uses 3",
            "WARNING: ignoring scaling=series: the earlier model uses dataset",
        ]

    def test_a_job_without_these_hyperparameters_takes_them_from_the_earlier_model(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        architecture = {
            "recurrent": "alstm",
            "convolutions": "false",
            "dimension-shuffle": "false",
            "squeeze-excite": "true",
            "ensemble-size": 3,
        }
        model = save_model(tmp_path, hyperparameters=HYPERPARAMETERS | architecture)
        settings = load_earlier(source(model)).take_architecture(parse_hyperparameters({}))
        assert architecture.items() <= settings.model_dump(by_alias=True).items()
        assert "WARNING" not in caplog.text


class TestFamily:
    """Models of several variables, of other kinds, and ensembles."""

    @staticmethod
    def save(folder: Path, network: LSTMFCN | Ensemble, variables: int = 2) -> EarlierModel:
        return load_earlier(source(save_model(folder, make_problem(variables=variables), network=network)))

    @staticmethod
    def make(
        seed: int, variables: int = 2, size: int = 1, length: int = LENGTH, settings: dict[str, str] | None = None
    ) -> LSTMFCN | Ensemble:
        given: dict[str, Any] = {**HYPERPARAMETERS, "seed": seed, "ensemble-size": size, **(settings or {})}
        return make_network(parse_hyperparameters(given), variables, length, len(CLASSES))

    @pytest.mark.parametrize("recurrent", ["lstm", "alstm", "gru", "rnn", "dense"])
    def test_every_weight_is_carried_over(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, recurrent: str
    ) -> None:
        caplog.set_level(logging.INFO)
        old, new = (self.make(seed, size=2, settings={"recurrent": recurrent}) for seed in (1, 7))
        self.save(tmp_path, old).carry_over(new, make_problem(variables=2))
        torch.testing.assert_close(new.state_dict(), old.state_dict(), rtol=0, atol=0)
        assert "model: convolutions, recurrent block, output layer; new: nothing; scaling" in caplog.messages[-1]

    def test_of_every_member_the_parts_that_fit(self, tmp_path: Path) -> None:
        old, new = self.make(1, size=2), self.make(7, size=2, length=20)
        before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
        self.save(tmp_path, old).carry_over(new, make_problem(20, variables=2))
        for name, tensor in new.state_dict().items():
            kept = before if ".recurrent." in name else old.state_dict()
            assert torch.equal(tensor, kept[name]), name

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"recurrent": "none"}, "convolutions, output layer; new: nothing;"),
            ({"convolutions": "false"}, "output layer; new: recurrent block (length 20, was 12);"),
        ],
    )
    def test_parts_that_do_not_exist_are_not_logged(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: dict[str, str], said: str
    ) -> None:
        caplog.set_level(logging.INFO)
        old, new = self.make(1, settings=settings), self.make(7, length=20, settings=settings)
        self.save(tmp_path, old).carry_over(new, make_problem(20, variables=2))
        assert caplog.messages[-1].startswith(f"weights kept from the earlier model: {said}")

    @pytest.mark.parametrize(("variables", "others"), [(1, 3), (3, 1)])
    def test_another_number_of_variables_is_refused(self, tmp_path: Path, variables: int, others: int) -> None:
        earlier = self.save(tmp_path, self.make(1, variables), variables)
        with pytest.raises(UserError) as caught:
            earlier.carry_over(self.make(7, others), make_problem(variables=others))
        assert str(caught.value) == (
            f"Channel model: the earlier model has num-variables={variables}, the training data has {others}. Set "
            f"num-variables={variables} if that is what the rows hold, or train without the channel model."
        )

    def test_a_member_that_is_missing_is_refused(self, tmp_path: Path) -> None:
        earlier = self.save(tmp_path, self.make(1, size=2))
        with pytest.raises(UserError, match=r"does not fit model\.json: network\.members\.2\."):
            earlier.carry_over(self.make(7, size=3), make_problem(variables=2))


GOLDEN = Path(__file__).parents[1] / "golden"


def test_a_model_of_an_earlier_release_has_the_predictions_of_its_graph(caplog: pytest.LogCaptureFixture) -> None:
    """The weights that were copied, with the scaling of the model, are the same classifier."""
    caplog.set_level(logging.INFO)
    folder = GOLDEN / "v1" / "model"
    earlier, (own, graph) = load_earlier(source(folder)), artifact.load(folder)
    problem = own.problem
    settings = earlier.take_architecture(parse_hyperparameters({"seed": "99"}))
    network = make_network(settings, problem.num_variables, problem.length, len(problem.classes))
    earlier.carry_over(network, problem)
    assert caplog.messages[-1] == (
        "weights kept from the earlier model: convolutions, recurrent block, output layer; new: nothing; scaling: kept"
    )
    rows = np.random.default_rng(0).normal(size=(5, problem.num_variables, problem.length)) + 10
    (expected,) = onnxruntime.InferenceSession(graph).run(["probabilities"], {"series": rows})
    kernels = load_classifier(folder)[1].kernels  # which are always fitted anew
    classifier = Classifier(Scaler(problem.scaling), network, problem.independent, kernels).eval()
    with torch.no_grad():
        np.testing.assert_allclose(classifier(torch.from_numpy(rows))[0], expected, atol=1e-5)

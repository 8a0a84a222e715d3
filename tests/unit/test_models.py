"""Endpoints with many models: the contract for several models, memory, and models that disappear or change."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from lstm_fcn.serving import models, multi_model
from lstm_fcn.serving.app import create_app
from lstm_fcn.serving.metrics import Metrics
from lstm_fcn.serving.models import ManyModels
from lstm_fcn.serving.registry import Registry, find_models
from lstm_fcn.serving.settings import Settings
from tests.models import GOLDEN, LABELS, ROWS, save_model_of_variables, save_plain_model

GIB = 2**30
INVOKE = {"Content-Type": "text/csv"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "names").mkdir()
    (tmp_path / "models").mkdir()
    return tmp_path


class Server:
    """A worker that serves models below a folder."""

    def __init__(self, root: Path, bound: int = 64 * GIB) -> None:
        self.models = root / "models"
        self.counts = Metrics()
        self.registry = Registry(root / "names", self.models)
        self.many = ManyModels(self.registry, bound, 1, "float32", self.counts)
        self.client: FlaskClient = create_app(self.many, Settings.from_environment({}), self.counts).test_client()

    def load(self, name: str, folder: Path | str) -> tuple[int, str]:
        response = self.client.post("/models", json={"model_name": name, "url": str(folder)})
        return response.status_code, response.text

    def invoke(self, name: str, rows: str = ROWS) -> tuple[int, str]:
        response = self.client.post(f"/models/{name}/invoke", data=rows, headers=INVOKE)
        return response.status_code, response.text

    @property
    def in_memory(self) -> list[str]:
        return list(self.many._loaded)


@pytest.fixture
def server(root: Path) -> Server:
    return Server(root)


class TestContract:
    def test_an_empty_server_is_healthy(self, server: Server) -> None:
        assert server.client.get("/ping").status_code == 200
        assert server.client.get("/models").json == {"models": []}
        assert server.client.post("/invocations", data=ROWS).status_code == 404

    def test_load_list_show_invoke_unload(self, server: Server) -> None:
        folder = save_plain_model(server.models / "a" / "model")
        described = {"modelName": "a", "modelUrl": str(folder)}
        assert server.load("a", folder)[0] == 200
        assert server.client.get("/models").json == {"models": [described]}
        assert server.client.get("/models/a").json == described
        assert server.invoke("a") == (200, "\n".join(LABELS))
        assert server.client.delete("/models/a").status_code == 200
        assert server.in_memory == []
        for response in (server.client.get("/models/a"), server.client.delete("/models/a")):
            assert (response.status_code, response.text) == (
                404,
                "There is no model 'a'; GET /models lists those that there are.\n",
            )
        assert server.invoke("a")[0] == 404

    def test_a_duplicate_is_refused_and_changes_nothing(self, server: Server) -> None:
        folder = save_plain_model(server.models / "a")
        assert server.load("a", folder)[0] == 200
        assert server.load("a", save_model_of_variables(server.models / "b")) == (
            409,
            "There is already a model a; delete it first.\n",
        )
        assert server.invoke("a")[0] == 200

    def test_pages_of_models(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(multi_model, "PAGE", 2)
        folder = save_plain_model(server.models / "a")
        for name in "abcde":
            server.registry.add(name, folder)
        names, token = [], ""
        while True:
            page = server.client.get("/models", query_string={"next_page_token": token}).json or {}
            names.append([model["modelName"] for model in page["models"]])
            if "nextPageToken" not in page:
                break
            token = page["nextPageToken"]
        assert names == [["a", "b"], ["c", "d"], ["e"]]

    def test_the_open_inference_protocol_knows_them(self, server: Server) -> None:
        server.load("a", save_plain_model(server.models / "a"))
        assert server.client.get("/v2/models/a/ready").json == {"name": "a", "ready": True}
        assert server.client.get("/v2/models/b/ready").json == {
            "error": "There is no model 'b'; GET /models lists those that there are."
        }


class TestRefusals:
    @pytest.mark.parametrize(
        "name", ["", ".", "..", "../a", "a/b", "a\\b", "-a", "a\n", "a" * 256, "ä", ".hidden"], ids=ascii
    )
    def test_names(self, server: Server, name: str) -> None:
        status, message = server.load(name, save_plain_model(server.models / "a"))
        assert (status, "must have 1 to 255 of the characters" in message) == (400, True)
        assert list((server.models.parent / "names").iterdir()) == []

    @pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2fmodels%2fa", "a\n"])
    def test_names_in_paths(self, server: Server, name: str) -> None:
        save_plain_model(server.models / "a")
        assert server.invoke(name)[0] in (404, 405)

    def test_folders_elsewhere(self, server: Server) -> None:
        outside = save_plain_model(server.models.parent / "outside")
        (server.models / "link").symlink_to(outside)
        for folder in (outside, server.models / ".." / "outside", server.models / "link", "/etc"):
            status, message = server.load("a", folder)
            assert (status, "must lie below" in message) == (400, True)

    @pytest.mark.parametrize("content", [None, [], {}, {"model_name": 1, "url": "x"}, {"model_name": "a"}])
    def test_bodies(self, server: Server, content: object) -> None:
        response = server.client.post("/models", json=content)
        assert (response.status_code, response.text) == (
            400,
            'The request must be {"model_name": "NAME", "url": "FOLDER"}.\n',
        )

    def test_a_folder_without_a_model(self, server: Server) -> None:
        (server.models / "a").mkdir()
        status, message = server.load("a", server.models / "a")
        assert (status, message) == (400, f"{server.models / 'a'} holds no model.\n")
        assert server.registry.names() == []

    def test_a_damaged_model(self, server: Server) -> None:
        folder = save_plain_model(server.models / "a")
        (folder / "model.onnx").write_bytes(b"x")
        status, message = server.load("a", folder)
        assert (status, "is damaged or belongs to another model" in message) == (400, True)
        server.registry.add("a", folder)
        status, message = server.invoke("a")
        assert (status, "is damaged or belongs to another model" in message) == (500, True)

    def test_a_model_that_does_not_fit(self, root: Path) -> None:
        server = Server(root, bound=1000)
        status, message = server.load("a", save_plain_model(server.models / "a"))
        assert status == 507
        assert "the memory of this worker is bounded to 1,000 bytes" in message
        assert server.registry.names() == []


class TestMemory:
    @pytest.fixture
    def room(self, monkeypatch: pytest.MonkeyPatch) -> list[Server]:
        """Memory is counted in models: the servers in the list share it."""
        servers: list[Server] = []
        monkeypatch.setattr(models, "resident_memory", lambda: sum(len(each.in_memory) for each in servers))
        monkeypatch.setattr(models, "GROWTH", 0)
        return servers

    def test_the_least_recently_used_one_makes_room(self, root: Path, room: list[Server]) -> None:
        server = Server(root, bound=2)
        room.append(server)
        for name in "abc":
            server.registry.add(name, save_plain_model(server.models / name))
        for name, expected in (("a", "a"), ("b", "ab"), ("a", "ba"), ("c", "ac"), ("b", "cb")):
            assert server.invoke(name)[0] == 200
            assert server.in_memory == list(expected)
        text = server.counts.text().decode()
        assert "lstm_fcn_model_load_seconds_count 4.0" in text
        assert "lstm_fcn_model_evictions_total 2.0" in text

    def test_a_model_in_use_is_answered_after_its_eviction(self, root: Path, room: list[Server]) -> None:
        server = Server(root, bound=1)
        room.append(server)
        for name in "ab":
            server.registry.add(name, save_plain_model(server.models / name))
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(server.invoke, "abab" * 5))
        assert answers == [(200, "\n".join(LABELS))] * 20

    def test_several_requests_read_a_model_once(self, server: Server) -> None:
        server.registry.add("a", save_plain_model(server.models / "a"))
        barrier = threading.Barrier(4)

        def invoke(_: int) -> int:
            barrier.wait()
            return server.invoke("a")[0]

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(invoke, range(4))) == [200] * 4
        assert "lstm_fcn_model_load_seconds_count 1.0" in server.counts.text().decode()


class TestChanges:
    def test_another_worker_knows_what_one_has_loaded_and_unloaded(self, root: Path) -> None:
        one, other = Server(root), Server(root)
        one.load("a", save_plain_model(one.models / "a"))
        assert other.invoke("a")[0] == 200
        one.client.delete("/models/a")
        assert other.invoke("a")[0] == 404

    def test_a_new_model_of_an_old_name_replaces_it_in_every_worker(self, root: Path) -> None:
        one, other = Server(root), Server(root)
        plain = save_plain_model(one.models / "plain")
        three = save_model_of_variables(one.models / "three")
        one.load("a", plain)
        assert other.invoke("a")[0] == 200
        one.client.delete("/models/a")
        one.load("a", three)
        assert other.invoke("a", "0,0,5,5,1,1\n") == (200, "y_b")

    def test_a_folder_that_is_removed_while_it_is_used(self, root: Path) -> None:
        server, other = Server(root), Server(root)
        folder = save_plain_model(server.models / "a")
        server.load("a", folder)
        shutil.rmtree(folder)
        assert server.invoke("a")[0] == 200  # it is in memory
        status, message = other.invoke("a")
        assert (status, "have been removed" in message) == (404, True)

    def test_sub_folders_with_a_model_are_found(self, server: Server) -> None:
        save_plain_model(server.models / "a")
        shutil.copytree(GOLDEN / "model", server.models / "b")
        save_plain_model(server.models / "c" / "model")  # the platform will load it under another name
        (server.models / "empty").mkdir()
        save_plain_model(server.models / ".hidden")
        assert find_models(server.models) == [server.models / "a", server.models / "b"]

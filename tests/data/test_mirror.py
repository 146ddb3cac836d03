"""A dataset on an S3 server or a web server gives the index and the decoded images of the one on this machine."""

from __future__ import annotations

import csv
import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import Flaky, serving_s3
from typer.testing import CliRunner

from hilum.cli import app
from hilum.config import load_config
from hilum.data import mirror
from hilum.data.index import Index, build_index, load_index, save_index
from hilum.errors import DataError
from hilum.filesystems import RemoteFolder, local_file
from hilum.storage import cache_folder

pytest.importorskip("moto.server")
pytest.importorskip("cryptography")  # of moto[server,s3]
boto3 = pytest.importorskip("boto3")
pytest.importorskip("pyarrow.fs")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of boto3 and moto

BUCKET = "hilum-data"


@pytest.fixture(scope="module")
def server() -> Iterator[Flaky]:
    with serving_s3() as application:
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield application


def upload(folder: Path, prefix: str) -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            RemoteFolder(f"s3://{BUCKET}/{prefix}").write(path.relative_to(folder).as_posix(), path.read_bytes())
    return f"s3://{BUCKET}/{prefix}"


@pytest.fixture
def address(server: Flaky, phantoms: Path, request: pytest.FixtureRequest) -> str:
    """A copy of the dataset of its own, which nothing has fetched."""
    return upload(phantoms, request.node.name.replace("[", "-").rstrip("]"))


def summary(index: Index) -> list[tuple[object, ...]]:
    return [(index.key(r), r.label, r.group, r.mask_path is not None, r.columns) for r in index.records]


@pytest.mark.parametrize("name", ["metadata.csv", ""])
def test_a_dataset_at_an_address_is_that_of_this_machine(address: str, phantoms: Path, name: str) -> None:
    expected, found = build_index(phantoms), build_index(f"{address}/{name}".rstrip("/"))
    assert found.digest == expected.digest
    assert summary(found) == summary(expected)
    for theirs, ours in zip(found.records, expected.records, strict=True):
        assert theirs.image_path.read_bytes() == ours.image_path.read_bytes()


def test_class_folders_at_an_address(server: Flaky, phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms, tmp_path / "data")
    (tmp_path / "data" / "metadata.csv").unlink()
    (tmp_path / "data" / "Normal" / "notes.txt").write_text("no image")
    address = upload(tmp_path / "data", "class-folders")
    expected, found = build_index(tmp_path / "data"), build_index(address)
    assert found.digest == expected.digest
    gone = found.key(found.records[0])
    RemoteFolder(address).delete(gone)
    temporary = found.records[1].image_path.with_name(".hilum-0123456789abcdef.png")  # of another process
    temporary.write_bytes(b"half")
    assert len(build_index(address).records) == len(expected.records) - 1  # its copy is gone as well
    assert temporary.is_file()


def test_a_file_is_fetched_once_and_again_when_it_changes(address: str, server: Flaky, phantoms: Path) -> None:
    server.gets.clear()
    index = build_index(f"{address}/metadata.csv")
    images = {path: count for path, count in server.gets.items() if path.endswith(".png")}
    others = [path for record in index.records for path in (record.mask_path, record.region_path) if path]
    files = len(index.records) + len(others)
    assert (len(images), set(images.values())) == (files, {1})
    server.gets.clear()
    assert build_index(f"{address}/metadata.csv").digest == index.digest
    assert not server.gets
    key = index.key(index.records[3])
    other = (phantoms / index.key(index.records[4])).read_bytes()
    RemoteFolder(address).write(key, other)
    assert build_index(f"{address}/metadata.csv").records[3].image_path.read_bytes() == other
    RemoteFolder(address).delete(key)
    found = build_index(f"{address}/metadata.csv")
    assert len(found.records) == len(index.records) - 1
    assert [finding.records for finding in found.findings if finding.check == "missing_file"] == [(key,)]


def test_training_decodes_each_image_from_one_request(
    address: str, server: Flaky, phantoms: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from hilum.run_folder import RunFolder
    from hilum.training.prepare import prepare

    overrides = {"preprocess": {"size": 32}, "split": {"val_fraction": 0.25, "test_fraction": 0.25}}
    ours = prepare(load_config(overrides={**overrides, "data": phantoms}), RunFolder(tmp_path / "ours"))
    config = load_config(overrides={**overrides, "data": f"{address}/metadata.csv"})
    server.gets.clear()
    run = RunFolder(tmp_path / "theirs")
    theirs = prepare(config, run)
    assert {count for path, count in server.gets.items() if path.endswith(".png")} == {1}
    server.gets.clear()
    again = prepare(config, run)  # as a resumed run does, from its own index
    assert not [path for path in server.gets if path.endswith(".png")]
    assert theirs.index.digest == again.index.digest == ours.index.digest
    for name in ("train", "val", "test"):
        assert (theirs.datasets[name].decoded().images == ours.datasets[name].decoded().images).all()


def test_a_saved_index_names_addresses(address: str, tmp_path: Path) -> None:
    index = build_index(f"{address}/metadata.csv")
    save_index(index, tmp_path / "index.csv")
    with (tmp_path / "index.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["image"] for row in rows} == {f"{address}/{index.key(record)}" for record in index.records}
    assert all(row["mask"].startswith(f"{address}/") for row in rows if row["mask"])
    assert load_index(tmp_path / "index.csv").digest == index.digest


def test_commands(address: str, phantoms: Path, tmp_path: Path) -> None:
    def code(*arguments: str) -> int:
        return CliRunner().invoke(app, list(arguments)).exit_code

    out = f"{address}/out/index.csv"
    assert code("index", address, "--output", out) == 0
    assert build_index(out).digest == build_index(phantoms).digest
    assert code("split", out, "--output", str(tmp_path / "split.json")) == 0
    assert (tmp_path / "split.json").is_file()
    for place in (address, f"{address}/metadata.csv"):
        assert code("index", place, "--output", f"{address}/metadata.csv") == 2
    assert code("train", address, "--output", f"{address}/run") == 2


def test_a_server_that_answers_503_only_slows(address: str, server: Flaky, phantoms: Path) -> None:
    server.share = 0.1
    try:
        found = build_index(address)
    finally:
        server.share = 0
    assert server.refused
    assert found.digest == build_index(phantoms).digest


def test_what_is_not_there(server: Flaky, tmp_path: Path) -> None:
    for place in (
        f"s3://{BUCKET}/none.csv",
        f"s3://{BUCKET}/none",
        "s3://no-such-bucket/a.csv",
        "https://127.0.0.1:9/a",
    ):
        with pytest.raises(DataError):
            build_index(place)
    (tmp_path / "a.csv").write_text(f"image,label\ns3://{BUCKET}/none.png,COVID\n")
    with pytest.raises(DataError, match="do not exist"):
        build_index(tmp_path / "a.csv")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def test_http(phantoms: Path) -> None:
    pytest.importorskip("aiohttp")
    handler = functools.partial(_Quiet, directory=str(phantoms))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        found = build_index(f"http://127.0.0.1:{serving.server_port}/metadata.csv")
        serving.shutdown()
    assert found.digest == build_index(phantoms).digest


def test_a_file_written_at_an_address(server: Flaky) -> None:
    with local_file(f"s3://{BUCKET}/bundles/model.hilum") as path:
        path.write_bytes(b"content")
    assert RemoteFolder(f"s3://{BUCKET}/bundles").read("model.hilum") == b"content"


@pytest.mark.parametrize(
    "uri", ["s3://b/a/x.png", "s3://b/../../x", "gs://b/a b%20c?d=1.png", "https://host:80/a/..", "abfs://c@a.dfs/x:y"]
)
def test_a_copy_has_its_place_in_the_cache(uri: str) -> None:
    path = mirror.mirrored(uri)
    assert mirror.address_of(path) == uri
    assert path.resolve().is_relative_to(cache_folder().resolve() / "files")


@pytest.mark.parametrize(
    ("cell", "address"),
    [("c/x.png", "s3://b/a/c/x.png"), ("../x.png", "s3://b/x.png"), ("gs://z/x.png", "gs://z/x.png"), ("/x.png", None)],
)
def test_cells_of_a_table_at_an_address(cell: str, address: str | None) -> None:
    path = mirror.beside(mirror.mirrored("s3://b/a"), cell)
    assert mirror.address_of(path) == address

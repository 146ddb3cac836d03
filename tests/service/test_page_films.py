"""What a session holds: each image once, packed, in any order; and what the page makes of it."""

from __future__ import annotations

import base64
import csv
import io
import json
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from dicom_images import content_of, phantom_image
from numpy.typing import NDArray

from hilum.bundle.bundle import Manifest
from hilum.errors import DataError
from hilum.imaging.read import read_radiograph
from hilum.inference.folder import predict_folder
from hilum.inference.predictor import Predictor
from hilum.inference.render import class_evidence
from hilum.inference.result import Prediction
from hilum.inference.saving import Wanted
from hilum.phantoms.chest import draw_phantom
from hilum.service.page import downloads
from hilum.service.page.films import THUMBNAIL_SIDE, Film, Films, upload
from hilum.service.page.gallery import specimens
from hilum.service.page.regions import region_scale
from hilum.service.page.rows import film_row, progress
from hilum.service.page.settings import PageSettings, open_predictor
from hilum.service.page.viewing import film_view

CAP = 1_000_000


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return open_predictor(PageSettings())


@pytest.fixture(scope="module")
def manifest(predictor: Predictor) -> Manifest:
    return predictor.manifest


def png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def answered(predictor: Predictor, *files: tuple[str, bytes]) -> Films:
    films = Films(1 << 30)
    for name, content in files:
        assert films.add(name, content)
    waiting = films.waiting()
    for film, answer in zip(waiting, predictor.predict_many([upload(film, CAP) for film in waiting]), strict=True):
        film.settle(answer)
    return films


@pytest.fixture(scope="module")
def films(predictor: Predictor) -> Films:
    """The gallery and a file that cannot be read."""
    found = [(one.name, one.content) for one in specimens()]
    return answered(predictor, *found, ("broken.png", found[0][1][:2000]))


def film_of(films: Films, name: str) -> Film:
    return next(film for film in films if film.name == name)


def test_the_same_film_is_taken_once_and_names_stay_distinct() -> None:
    films = Films(1000)
    assert films.add("a/film.png", b"1")
    assert not films.add("other.png", b"1")
    assert films.add("b\\film.png", b"2")
    assert films.add("film.png", b"3")
    assert [film.name for film in films] == ["film.png", "film (2).png", "film (3).png"]


def test_what_is_beyond_the_sessions_limit_is_a_row_with_its_reason() -> None:
    films = Films(10)
    films.add("a.png", b"12345678")
    films.add("b.png", b"12345")
    full = film_of(films, "b.png")
    assert full.status == "unreadable"
    assert full.content == b""
    assert "10 bytes" in film_row(full)["reason"]
    assert [film.name for film in films.waiting()] == ["a.png"]
    films.remove(films.waiting()[0].key)
    films.remove(full.key)
    assert films.add("b.png", b"12345")
    assert [film.name for film in films.waiting()] == ["b.png"]


def test_the_gallery_is_answered_and_its_last_three_are_refused(films: Films) -> None:
    assert [film.status for film in films] == [
        "ok", "ok", "unsure", "unsure", "unsure", "refused", "refused", "refused", "unreadable",
    ]  # fmt: skip
    assert films.counts() == {"all": 9, "answered": 2, "unsure": 3, "refused": 4}
    assert progress(films) == {"done": 9, "all": 9}


def test_filters_and_orders(films: Films) -> None:
    tops = [film_row(film)["probability"] for film in films.shown("all", "surest")[:5]]
    assert tops == sorted(tops, reverse=True)
    assert [film_row(film)["probability"] for film in films.shown("all", "least sure")[:5]] == tops[::-1]
    labels = [film_row(film)["label"] for film in films.shown("unsure", "class")]
    assert labels == sorted(labels)
    assert len(labels) == 3
    assert {film.status for film in films.shown("refused", "surest")} == {"refused", "unreadable"}
    assert [film.status for film in films.shown("all", "class")][-4:] == ["refused"] * 3 + ["unreadable"]


def test_a_settled_film_keeps_its_answer_and_no_pixels(predictor: Predictor) -> None:
    image = draw_phantom(3, "Lung_Opacity", size=512).image
    film = next(iter(answered(predictor, ("film.png", png(image)))))
    again = film.prediction()
    whole = predictor.predict(read_radiograph(png(image), origin="film.png"))
    assert isinstance(whole, Prediction)
    assert again is not None
    assert np.array_equal(again.mask, whole.mask)
    assert np.array_equal(list(again.probabilities.values()), list(whole.probabilities.values()))
    held = [value for value in vars(film).values() if isinstance(value, np.ndarray)]
    assert not held
    assert isinstance(film.result, Prediction)
    assert film.result.mask.size == 0
    small = cv2.imdecode(np.frombuffer(film.thumbnail, np.uint8), cv2.IMREAD_UNCHANGED)
    assert small.shape == (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    assert abs(float(small.mean()) - float(image.mean())) < 1


def test_rows_say_prediction_set_and_reasons(films: Films) -> None:
    unsure = film_row(film_of(films, "phantom-viral-pneumonia.png"))
    assert (unsure["label"], unsure["others"]) == ("Viral Pneumonia", ["Lung_Opacity"])
    assert unsure["percent"] == f"{unsure['probability']:.1%}"
    assert "rotated 270 degrees" in film_row(film_of(films, "phantom-sideways.png"))["reason"]
    assert film_row(film_of(films, "broken.png"))["reason"]


def test_the_view_has_the_films_own_gray_levels_and_what_it_says_of_regions_is_so(
    films: Films, manifest: Manifest
) -> None:
    film = film_of(films, "phantom-lung-opacity.png")
    view = json.loads(film_view(film, manifest, CAP))
    pixels = zlib.decompress(base64.b64decode(view["film"]["data"]))
    assert np.array_equal(
        np.frombuffer(pixels, np.uint8).reshape(512, 512), draw_phantom(3, "Lung_Opacity", size=512).image
    )
    assert [one["inSet"] for one in view["classes"]] == [False, True, False, False]
    height, width = view["evidence"]["height"], view["evidence"]["width"]
    maps = np.frombuffer(zlib.decompress(base64.b64decode(view["evidence"]["data"])), "<u2").reshape(-1, height, width)
    prediction = film.prediction()
    assert prediction is not None
    lung = cv2.resize(prediction.mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0.5
    told, shares = view["classes"][1], maps[1].astype(np.float32)
    found = lung & (shares >= region_scale(shares, lung).thresholds[20])
    assert told["lung"][20] == pytest.approx(found.sum() / lung.sum(), abs=1e-4)
    assert told["share"][20] == pytest.approx(shares[found].sum() / shares.sum(), abs=1e-4)
    assert np.array_equal(found, lung & (shares / 65535 >= told["thresholds"][20] - 1e-6))
    evidence = class_evidence(prediction, (512, 512), manifest.preprocess)
    assert evidence is not None
    assert told["peak"] == pytest.approx(float(evidence.max()), rel=0.01)


def test_the_view_of_a_deep_film_keeps_its_depth(predictor: Predictor, manifest: Manifest) -> None:
    deep = draw_phantom(1, "Normal", size=512).image.astype(np.uint16) * 257
    film = next(iter(answered(predictor, ("deep.png", png(deep)))))
    view = json.loads(film_view(film, manifest, CAP))
    assert view["film"]["bits"] == 16
    pixels = np.frombuffer(zlib.decompress(base64.b64decode(view["film"]["data"])), "<u2")
    assert np.array_equal(pixels.reshape(512, 512), deep)


def test_views_without_an_answer_say_why(films: Films, manifest: Manifest) -> None:
    refused = json.loads(film_view(film_of(films, "phantom-inverted.png"), manifest, CAP))
    assert "inverted gray scale" in refused["findings"][0]["message"]
    assert "film" in refused
    assert "classes" not in refused
    broken = json.loads(film_view(film_of(films, "broken.png"), manifest, CAP))
    assert "film" not in broken
    assert broken["findings"]
    waiting = Films(CAP)
    waiting.add("x.png", specimens()[0].content)
    assert json.loads(film_view(next(iter(waiting)), manifest, CAP))["status"] == "waiting"


def test_downloads_are_what_predict_writes(films: Films, predictor: Predictor, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for film in films:
        (folder / film.name).write_bytes(film.content)
    files = [folder / film.name for film in films if film.content]
    predict_folder(predictor, files, tmp_path / "out", save=Wanted(overlays=True, masks=True))
    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        expected = list(csv.reader(stream))
    rows = list(csv.reader(io.StringIO(downloads.table_csv(films, predictor.manifest).decode())))
    assert rows[0] == expected[0]
    assert [row[1:] for row in rows[1:-1]] == [row[1:] for row in expected[1:]]
    assert rows[-1][:2] == ["broken.png", "unreadable"]
    archive = zipfile.ZipFile(io.BytesIO(downloads.everything_zip(films, predictor.manifest, CAP)))
    assert len(archive.namelist()) == 1 + 2 * 5
    name = "phantom-lung-opacity.png"
    for kind in ("overlays", "masks"):
        assert archive.read(f"{kind}/{name}") == (tmp_path / "out" / kind / name).read_bytes()
    archive.close()


def test_the_overlay_of_another_class_is_another_picture(films: Films, manifest: Manifest) -> None:
    film = film_of(films, "phantom-viral-pneumonia.png")
    own = downloads.overlay_file(film, manifest, CAP)
    assert downloads.overlay_file(film, manifest, CAP, "Viral Pneumonia") == own
    assert downloads.overlay_file(film, manifest, CAP, "Lung_Opacity") != own


def test_dicom_objects_are_of_the_film(predictor: Predictor) -> None:
    import pydicom

    source = phantom_image(3, "Lung_Opacity", size=512)
    film = next(iter(answered(predictor, ("film.dcm", content_of(source)))))
    assert downloads.why_no_objects(film) == ""
    found = pydicom.dcmread(io.BytesIO(downloads.segmentation_file(film, predictor)))
    prediction = film.prediction()
    assert prediction is not None
    assert found.Modality == "SEG"
    assert found.StudyInstanceUID == source.StudyInstanceUID
    lungs = found.pixel_array[:2].any(axis=0)  # right and left
    assert np.array_equal(lungs, prediction.mask)
    assert pydicom.dcmread(io.BytesIO(downloads.report_file(film, predictor))).Modality == "SR"


def test_a_film_that_no_object_can_be_made_of_says_why(films: Films, predictor: Predictor) -> None:
    assert "no DICOM" in downloads.why_no_objects(film_of(films, "noise.png"))
    nameless = phantom_image(3, "Lung_Opacity", size=512, StudyInstanceUID=None)
    film = next(iter(answered(predictor, ("film.dcm", content_of(nameless)))))
    assert "StudyInstanceUID" in downloads.why_no_objects(film)


def test_pictures_of_a_refusal_are_an_error(films: Films) -> None:
    film = film_of(films, "noise.png")
    assert film.status == "refused"
    with pytest.raises(DataError):
        downloads.mask_file(film)

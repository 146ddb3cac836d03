"""``hilum dicomweb`` against a real Orthanc, with phantoms as DX and CR images."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_images import content_of, dicom_image, phantom_image
from orthanc import Orthanc, free_port, needs_orthanc, running
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless

from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.inference.dicom_out import instance_uid
from hilum.inference.predictor import Predictor, Upload
from hilum.inference.result import Prediction
from hilum.phantoms.chest import draw_phantom

pytestmark = needs_orthanc

Hilum = Callable[..., str]
FIRST = 4_000_001  # phantoms that the shipped gate accepts


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("TOKEN", "USER", "PASSWORD"):
        monkeypatch.delenv(f"HILUM_DICOMWEB_{name}", raising=False)


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    with running(tmp_path / "orthanc") as started:
        yield started


def chest(number: int, **elements: Any) -> Dataset:
    return phantom_image(FIRST + number, size=256, **elements)


def counted(output: str) -> dict[str, int]:
    """The table at the end of a run."""
    return {name.strip(): int(count) for name, count in re.findall(r"│ (.+?) +│ (\d+) +│", output)}


def read(content: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(content))


def test_images_get_segmentation_and_report_once(orthanc: Orthanc, hilum: Hilum, tmp_path: Path) -> None:
    plain, jpeg, rle = chest(0), chest(1), chest(2, SOPClassUID="1.2.840.10008.5.1.4.1.1.1", Modality="CR")
    jpeg.compress(JPEG2000Lossless, generate_instance_uid=False)
    rle.compress(RLELossless, generate_instance_uid=False)
    images = {str(each.SOPInstanceUID): each for each in (plain, jpeg, rle)}
    orthanc.add(*images.values())
    log = tmp_path / "log.csv"
    output = hilum("dicomweb", orthanc.url, "--all", "--log", log)
    assert counted(output)["ok"] == 3
    assert {name: count for name, count in counted(output).items() if name.startswith("stored")} == {
        "stored: segmentations": 3,
        "stored: reports": 3,
    }
    assert (orthanc.count("SEG"), orthanc.count("SR")) == (3, 3)

    predictor = Predictor(load_bundle(resolve_bundle(DEFAULT)))
    bundle_id = predictor.manifest.bundle_id
    for uid, source in images.items():
        expected = predictor.predict(Upload(content_of(source), "image.dcm"))
        assert isinstance(expected, Prediction)
        (stored,) = orthanc.files(SOPInstanceUID=instance_uid(uid, bundle_id, "seg"))
        segmentation = highdicom.seg.segread(io.BytesIO(stored))
        masks = segmentation.get_pixels_by_source_instance([uid], segment_numbers=[1, 2])
        np.testing.assert_array_equal(masks[0].any(axis=-1), expected.mask)
        (stored,) = orthanc.files(SOPInstanceUID=instance_uid(uid, bundle_id, "sr"))
        report = highdicom.sr.srread(io.BytesIO(stored))
        assert expected.label in str(report.ContentSequence)
        assert uid in str(report)
        for made in (segmentation, report):
            assert stored[128:132] == b"DICM"
            assert made.StudyInstanceUID == source.StudyInstanceUID
            assert made.PatientID == source.PatientID
            assert str(made.PatientName) == "Phantom^Förster"
    rows = list(csv.DictReader(log.read_text(encoding="utf-8").splitlines()))
    assert {row["instance"]: row["status"] for row in rows} == dict.fromkeys(images, "ok")
    assert {row["stored"] for row in rows} == {"seg sr"}
    for text in (output, log.read_text(encoding="utf-8")):
        assert not re.search("Phantom|Förster|P-0001|ACC-1|19700102", text)

    again = hilum("dicomweb", orthanc.url, "--all", "--log", log)
    assert counted(again) == {"skipped: done before": 3}
    assert (orthanc.count("SEG"), orthanc.count("SR")) == (3, 3)
    assert len(log.read_text(encoding="utf-8").splitlines()) == 4


def test_captures_and_presentation_states_are_stored_too_and_can_follow_later(orthanc: Orthanc, hilum: Hilum) -> None:
    turned = dicom_image(np.ascontiguousarray(draw_phantom(FIRST, "Normal", size=256).image[::-1]), name="turned")
    orthanc.add(chest(0), chest(1), turned)
    hilum("dicomweb", orthanc.url, "--study", chest(0).StudyInstanceUID)
    output = counted(hilum("dicomweb", orthanc.url, "--all", "--dicom-sc", "--dicom-pr"))
    assert {name: count for name, count in output.items() if name.startswith("stored")} == {
        "stored: segmentations": 2,
        "stored: reports": 3,
        "stored: secondary captures": 2,
        "stored: presentation states": 2,
    }
    assert {kind: orthanc.count(kind) for kind in ("SEG", "SR", "OT", "PR")} == {"SEG": 2, "SR": 3, "OT": 2, "PR": 2}
    again = counted(hilum("dicomweb", orthanc.url, "--all", "--dicom-sc", "--dicom-pr"))
    assert again == {"skipped: done before": 3}

    (bundle_id,) = {str(read(stored).DeviceSerialNumber) for stored in orthanc.files(Modality="SEG")}
    for image in (chest(0), chest(1)):
        uid = str(image.SOPInstanceUID)
        made = {
            kind: read(orthanc.files(SOPInstanceUID=instance_uid(uid, bundle_id, kind))[0])
            for kind in ("seg", "sr", "sc", "pr")
        }
        assert made["sc"].BurnedInAnnotation == "YES"
        assert made["sc"].SourceImageSequence[0].ReferencedSOPInstanceUID == uid
        assert made["sc"].pixel_array.shape[2] == 3
        referenced = made["pr"].ReferencedSeriesSequence[0]
        assert referenced.SeriesInstanceUID == image.SeriesInstanceUID
        assert referenced.ReferencedImageSequence[0].ReferencedSOPInstanceUID == uid
        report = highdicom.sr.srread(io.BytesIO(content_of(made["sr"])))
        groups = report.content.get_planar_roi_measurement_groups()
        tracked = {str(group.tracking_uid) for group in groups}
        assert tracked == {str(segment.TrackingUID) for segment in made["seg"].SegmentSequence}
        drawn = {
            str(graphic.TrackingUID)
            for annotation in made["pr"].GraphicAnnotationSequence
            for graphic in annotation.get("GraphicObjectSequence", [])
        }
        assert drawn <= tracked
        assert all(
            group.referenced_segmentation_frame[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            == made["seg"].SOPInstanceUID
            for group in groups
        )


def test_an_image_whose_storing_was_cut_off_is_done_again(orthanc: Orthanc, hilum: Hilum) -> None:
    orthanc.add(chest(0), chest(1))
    hilum("dicomweb", orthanc.url, "--all")
    before = {modality: sorted(orthanc.find(Modality=modality)) for modality in ("SEG", "SR")}
    study = str(chest(0).StudyInstanceUID)
    orthanc.remove(Modality="SR", StudyInstanceUID=study)  # the segmentation had come, the report had not
    output = counted(hilum("dicomweb", orthanc.url, "--all"))
    assert (output["ok"], output["skipped: done before"]) == (1, 1)
    assert {modality: sorted(orthanc.find(Modality=modality)) for modality in ("SEG", "SR")} == before


def test_what_is_no_chest_image_is_left_alone(orthanc: Orthanc, hilum: Hilum) -> None:
    study = chest(0).StudyInstanceUID
    orthanc.add(
        chest(0),
        chest(1, StudyInstanceUID=study, BodyPartExamined=None),
        chest(2, StudyInstanceUID=study, BodyPartExamined="HAND"),
        chest(3, StudyInstanceUID=study, SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1.1"),
        chest(4, StudyInstanceUID=study, SOPClassUID="1.2.840.10008.5.1.4.1.1.7"),
        chest(5, StudyInstanceUID=study, SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT"),
        chest(6, SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT"),
    )
    listed = hilum("dicomweb", orthanc.url, "--all", "--dry-run")
    assert orthanc.count("SR") == 0
    assert re.findall(r"^to do study (\S+), (\S+): (\d+) images?$", listed, re.MULTILINE) == [
        (study, "2026-01-31", "2")
    ]
    skipped = {
        "skipped: another body part": 1,
        "skipped: for processing, not for presentation": 1,
        "skipped: not a CR or DX image": 1,
    }
    assert counted(listed) == {"to do": 2, **skipped}
    output = hilum("dicomweb", orthanc.url, "--all")
    assert {name: count for name, count in counted(output).items() if name in (*skipped, "ok")} == {
        "ok": 2,
        **skipped,
    }
    assert orthanc.count("SR") == 2


def test_refused_and_unreadable_images_get_a_report_alone(orthanc: Orthanc, hilum: Hilum) -> None:
    turned = dicom_image(np.ascontiguousarray(draw_phantom(FIRST, "Normal", size=256).image[::-1]), name="turned")
    cut = chest(2)
    cut.compress(JPEG2000Lossless, generate_instance_uid=False)
    cut.PixelData = encapsulate([b"no such codestream"])
    orthanc.add(turned, cut, chest(3))
    output = hilum("dicomweb", orthanc.url, "--all")
    found = counted(output)
    assert (found["refused"], found["unreadable"], found["ok"]) == (1, 1, 1)
    assert re.search(rf"^unreadable image {cut.SOPInstanceUID}: Cannot decode .* \(\w+\)\.", output, re.MULTILINE)
    assert re.search(rf"^refused image {turned.SOPInstanceUID}: rotated 180 degrees", output, re.MULTILINE)
    assert (orthanc.count("SEG"), orthanc.count("SR")) == (1, 3)
    assert counted(hilum("dicomweb", orthanc.url, "--all")) == {"skipped: done before": 3}


def test_a_study_that_fails_is_told_and_the_others_go_on(orthanc: Orthanc, hilum: Hilum, tmp_path: Path) -> None:
    gone, *others = chest(0), chest(1), chest(2)
    orthanc.add(gone, *others)
    stored = [path for path in (tmp_path / "orthanc" / "storage").rglob("*") if path.is_file()]
    (bad,) = [path for path in stored if str(gone.SOPInstanceUID).encode() in path.read_bytes()]
    bad.unlink()
    named = [word for each in (gone, *others) for word in ("--study", str(each.StudyInstanceUID))]
    output = hilum("dicomweb", orthanc.url, *named, code=1)
    assert (counted(output)["failed"], counted(output)["ok"]) == (1, 2)
    assert re.search(rf"^failed study {gone.StudyInstanceUID}: .* 500 Internal Server Error", output, re.MULTILINE)


def test_studies_by_name_and_by_date(orthanc: Orthanc, hilum: Hilum) -> None:
    old, new = chest(0, StudyDate="20200101"), chest(1, StudyDate=time.strftime("%Y%m%d"))
    orthanc.add(old, new)
    listed = hilum("dicomweb", orthanc.url, "--since", "24h", "--dry-run")
    assert f"{new.StudyInstanceUID}, {time.strftime('%Y-%m-%d')}: 1 image" in listed
    assert old.StudyInstanceUID not in listed
    named = hilum("dicomweb", orthanc.url, "--study", old.StudyInstanceUID, "--dry-run")
    assert f"{old.StudyInstanceUID}, 2020-01-01: 1 image" in named
    assert counted(hilum("dicomweb", orthanc.url, "--since", "2020-01-01", "--dry-run")) == {"to do": 2}
    output = hilum("dicomweb", orthanc.url, "--study", old.StudyInstanceUID)
    assert counted(output)["ok"] == 1
    assert len(orthanc.find(Modality="SR", StudyInstanceUID=old.StudyInstanceUID)) == 1
    assert orthanc.count("SR") == 1
    output = hilum("dicomweb", orthanc.url, "--study", "1.2.3", "--study", new.StudyInstanceUID, code=1)
    assert "failed study 1.2.3: There is no such study." in output
    assert orthanc.count("SR") == 2


def test_more_studies_than_a_page_holds(orthanc: Orthanc, hilum: Hilum, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilum.dicomweb.server._PAGE", 4)
    monkeypatch.setattr("hilum.dicomweb.server._LAST_PAGE", 4)
    orthanc.add(*(chest(number) for number in range(8)), phantom_image(FIRST, kind="CR"))
    assert counted(hilum("dicomweb", orthanc.url, "--all", "--dry-run")) == {"to do": 9}
    assert counted(hilum("dicomweb", orthanc.url, "--all", "--dry-run", "--limit", "5")) == {"to do": 5}
    assert counted(hilum("dicomweb", orthanc.url, "--since", "2020-01-01", "--dry-run")) == {"to do": 9}


def test_a_killed_run_goes_on(orthanc: Orthanc, hilum: Hilum, tmp_path: Path) -> None:
    count, log = 12, tmp_path / "log.csv"
    orthanc.add(*(chest(number) for number in range(count)))
    process = start(orthanc, "--all", "--log", log)
    wait_for(lambda: orthanc.count("SR") > 0, process)
    process.kill()
    process.communicate()
    done = orthanc.count("SR")
    assert 0 < done < count
    output = counted(hilum("dicomweb", orthanc.url, "--all", "--log", log))
    assert output["skipped: done before"] >= done
    assert output["ok"] + output["skipped: done before"] == count
    assert (orthanc.count("SEG"), orthanc.count("SR")) == (count, count)
    rows = [row for row in csv.DictReader(log.read_text().splitlines()) if row["status"] == "ok"]
    assert len({row["instance"] for row in rows}) >= count - 1  # the image at hand may have been stored, not yet logged


def test_watching_takes_new_images_and_ends_when_told(orthanc: Orthanc, tmp_path: Path) -> None:
    orthanc.add(chest(0))
    process = start(orthanc, "--all", "--watch", "1")
    wait_for(lambda: orthanc.count("SR") == 1, process)
    orthanc.add(chest(1))
    wait_for(lambda: orthanc.count("SR") == 2, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert said.count("1 images, bundle") == 2


def test_watching_outlasts_a_restart_of_the_archive(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path / "orthanc", port=port) as orthanc:
        orthanc.add(chest(0))
        process = start(orthanc, "--all", "--watch", "1")
        wait_for(lambda: orthanc.count("SR") == orthanc.count("SEG") == 1, process)
    time.sleep(3)
    with running(tmp_path / "orthanc", port=port) as orthanc:
        orthanc.add(chest(1))
        wait_for(lambda: orthanc.count("SR") == 2, process)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert re.search(r"^warning .* cannot be reached .Connection refused.* Retrying in 1 s", said, re.MULTILINE)


def test_an_interrupted_run_finishes_the_image_at_hand(orthanc: Orthanc) -> None:
    orthanc.add(*(chest(number) for number in range(12)))
    process = start(orthanc, "--all")
    wait_for(lambda: orthanc.count("SR") > 0, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "Interrupted. Completed work is kept." in said
    assert counted(said)["ok"] == orthanc.count("SR") == orthanc.count("SEG") < 12


def test_passwords(tmp_path: Path, hilum: Hilum, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path / "orthanc", login=("hilum", "right")) as orthanc:
        orthanc.add(chest(0))
        assert "401 Unauthorized" in hilum("dicomweb", orthanc.url, "--all", code=2)
        monkeypatch.setenv("HILUM_DICOMWEB_USER", "hilum")
        monkeypatch.setenv("HILUM_DICOMWEB_PASSWORD", "wrong")
        output = hilum("dicomweb", orthanc.url, "--all", code=2)
        assert "401 Unauthorized" in output
        assert "wrong" not in output
        monkeypatch.setenv("HILUM_DICOMWEB_PASSWORD", "right")
        assert counted(hilum("dicomweb", orthanc.url, "--all"))["ok"] == 1


def test_what_is_no_dicomweb_service(orthanc: Orthanc, hilum: Hilum) -> None:
    orthanc.add(chest(0))
    assert "400 Bad Request" in hilum("dicomweb", orthanc.root, "--all", code=2)
    assert "404 Not Found" in hilum("dicomweb", f"{orthanc.root}/elsewhere", "--all", code=2)
    nobody = f"http://127.0.0.1:{free_port()}/dicom-web"
    assert "cannot be reached (Connection refused)" in hilum("dicomweb", nobody, "--all", code=2)


def start(orthanc: Orthanc, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-c",
        "from hilum.cli import main; main()",
        "dicomweb",
        orthanc.url,
        *map(str, arguments),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ})


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(1500):
        if reached():
            return
        if process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        time.sleep(0.02)
    process.kill()
    raise AssertionError(process.communicate()[0])

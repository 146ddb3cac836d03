"""DICOM files that someone could send get their answer within the bounds, and the same one through a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_bundles import packaged
from hostile_case import Case, bounded, parametrize
from hostile_dicom import DICOM, HEADERS, in_syntax
from hostile_images import file
from pydicom.uid import JPEG2000Lossless

from hilum.errors import HilumError
from hilum.imaging.reader_pool import ReaderPool
from hilum.inference.dicom_source import source_header
from hilum.inference.predictor import Predictor, Upload


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predictor]:
    with ReaderPool(1) as readers:
        found = Predictor(packaged(), read=readers.read_radiograph)
        first = file("a.dcm", in_syntax(JPEG2000Lossless))(tmp_path_factory.mktemp("first"))
        found.predict(first)  # imports are not measured
        yield found


@parametrize(DICOM)
def test_dicom(case: Case, tmp_path: Path, predictor: Predictor) -> None:
    path = case.make(tmp_path)
    with bounded():
        result = predictor.predict(path)
    assert result.status == case.answer, result.reason
    sent = predictor.predict(Upload(path.read_bytes(), path.name))
    assert sent.status == case.answer, sent.reason


@parametrize(HEADERS)
def test_header_that_dicom_objects_refer_to(case: Case, tmp_path: Path) -> None:
    path, found = case.make(tmp_path), "ok"
    with bounded():
        try:
            source_header(path)
        except HilumError as error:
            found = type(error).__name__
    assert found == case.answer

"""The programs on docs/prepare_data.md turn a made-up table of each dataset's columns into an index."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_writing import content_of, dataset_of

from hilum.data.index import Index, build_index
from hilum.inference.png import save_png
from hilum.phantoms.chest import draw_phantom

PAGE = Path(__file__).parents[2] / "docs" / "prepare_data.md"


def program(title: str) -> str:
    """The program below the heading ``title``."""
    section = PAGE.read_text(encoding="utf-8").split(f" {title}\n")[1]
    found = re.search(r"^```py\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def converted(title: str, folder: Path, table: str) -> Index:
    """Run the program in ``folder``, and index the table that it writes."""
    subprocess.run([sys.executable, "-W", "error", "-c", program(title)], cwd=folder, check=True, timeout=60)
    return build_index(folder / table)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = draw_phantom(seed, "Normal", size=64).image
    if path.suffix == ".png":
        save_png(image, path)
        return
    if path.suffix == ".jpg":
        from PIL import Image

        Image.fromarray(image).save(path)
        return
    stored = image.astype(np.uint16)
    path.write_bytes(content_of(dataset_of(stored, 16, PatientID=f"patient-{seed}", InstitutionName="hospital")))


def test_rsna(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "stage_2_detailed_class_info.csv": "patientId,class\na,Lung Opacity\na,Lung Opacity\nb,Normal\n",
            "stage_2_train_labels.csv": "patientId,x,y,width,height,Target\n"
            "a,256.0,512.0,128.0,64.0,1\na,0.0,0.0,1024.0,512.0,1\nb,,,,,0\n",
        },
    )
    for seed, name in enumerate("ab"):
        draw(tmp_path / "stage_2_train_images" / f"{name}.dcm", seed)
    index = converted("RSNA Pneumonia Detection Challenge", tmp_path, "rsna.csv")
    assert [(record.label, record.group, record.source) for record in index.records] == [
        ("Lung Opacity", "a", "rsna"),
        ("Normal", "b", "rsna"),
    ]
    assert index.records[0].boxes == ((0.25, 0.5, 0.125, 0.0625), (0.0, 0.0, 1.0, 0.5))
    assert index.records[1].boxes == ()


@pytest.mark.parametrize("table", ["Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"])
def test_nih(tmp_path: Path, table: str) -> None:
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    header += "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    rows = [
        "1_000.png,No Finding,0,1",
        "1_001.png,Effusion|Mass,1,1",
        "8_000.png,Effusion,0,8",
        "9_000.png,Effusion,0,9",
    ]
    write(tmp_path, {table: "\n".join([header, *(f"{row},58,M,PA,2682,2749,0.143,0.143" for row in rows)])})
    write(tmp_path, {"test_list.txt": "9_000.png\n"})
    for seed, row in enumerate(rows):
        draw(tmp_path / f"images_00{1 + seed % 2}" / "images" / row.split(",")[0], seed)
    index = converted("NIH ChestX-ray14", tmp_path, "nih.csv")
    assert {record.image_path.name: (record.label, record.group, record.split) for record in index.records} == {
        "1_000.png": ("Normal", "1", "train"),
        "8_000.png": ("Effusion", "8", "val"),
        "9_000.png": ("Effusion", "9", "test"),
    }


def test_chexpert(tmp_path: Path) -> None:
    findings = "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,"
    findings += "Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
    folder = "CheXpert-v1.0-small"

    def row(patient: int, view: str, **values: str) -> str:
        name = f"{folder}/train/patient{patient:05}/study1/view1_{view.lower()}.jpg"
        draw(tmp_path / name, patient)
        cells = [values.get(finding.replace(" ", "_"), "") for finding in findings.split(",")]
        return ",".join([name, "Male", "61", view, "AP" if view == "Frontal" else "", *cells])

    rows = [
        row(1, "Frontal", No_Finding="1.0", Support_Devices="1.0"),
        row(2, "Frontal", Pleural_Effusion="1.0", Pneumothorax="0.0"),
        row(3, "Frontal", Pleural_Effusion="1.0", Pneumothorax="-1.0"),
        row(4, "Frontal", Pleural_Effusion="1.0", Pneumothorax="1.0"),
        row(5, "Lateral", Pneumothorax="1.0"),
    ]
    write(tmp_path, {f"{folder}/train.csv": "\n".join([f"Path,Sex,Age,Frontal/Lateral,AP/PA,{findings}", *rows])})
    index = converted("CheXpert and tables like it", tmp_path, "chexpert.csv")
    assert [(record.label, record.group, record.source) for record in index.records] == [
        ("No Finding", "patient00001", "chexpert AP"),
        ("Pleural Effusion", "patient00002", "chexpert AP"),
    ]


def test_dicom_folders(tmp_path: Path) -> None:
    for seed, name in enumerate(("a.dcm", "study/b", "other.dcm")):
        draw(tmp_path / "dicom" / name, seed)
    write(tmp_path, {"labels.csv": "file,label\na.dcm,Normal\nb,Pneumonia\n"})
    index = converted("DICOM folders", tmp_path, "dicom.csv")
    assert [(record.label, record.group, record.source) for record in index.records] == [
        ("Normal", "patient-0", "hospital"),
        ("Pneumonia", "patient-1", "hospital"),
    ]

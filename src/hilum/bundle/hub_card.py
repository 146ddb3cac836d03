"""Write a bundle's model card for the Hugging Face Hub: YAML metadata, then Markdown.

The fields are those of the Hub's model card metadata (https://huggingface.co/docs/hub/model-cards). Everything comes
from the bundle; what it does not know, such as a license, is left to the reader to set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hilum.bundle.bundle import MODEL_CARD, Bundle, Manifest
from hilum.bundle.card import NOT_A_DEVICE
from hilum.format import bounds, metric_title

_CLASSIFICATION, _SEGMENTATION = "image-classification", "image-segmentation"
_TASKS = {_CLASSIFICATION: "Class of a chest radiograph", _SEGMENTATION: "Lung mask of a chest radiograph"}
_SEGMENTATION_METRICS = frozenset({"dice", "iou", "hd95_share", "hd95"})  # the last: earlier versions
_HUB_METRICS = {
    "macro_f1": "f1", "macro_roc_auc": "roc_auc", "macro_precision": "precision", "mcc": "matthews_correlation",
    "iou": "mean_iou",
}  # fmt: skip
"""Key of a metric to its name on the Hub, where that is another."""


def hub_card(bundle: Bundle) -> str:
    """Return the content of ``README.md`` for a model repository on the Hub.

    The metadata list every test metric over all sources, also per class, with its value; ``name`` and ``args`` of each
    contain n and the 95% interval. The text is the bundle's own model card.
    """
    manifest = bundle.manifest
    lines = ["---", *_yaml(hub_metadata(manifest)), "---", ""]
    own = bundle.read(MODEL_CARD).decode(errors="replace")
    return "\n".join(lines) + _USAGE.format(not_a_device=NOT_A_DEVICE) + own


def hub_metadata(manifest: Manifest) -> dict[str, Any]:
    """Return the metadata of a bundle's card, as the Hub's YAML holds them."""
    results = _results(manifest)
    metrics = dict.fromkeys(metric["type"] for result in results for metric in result["metrics"])
    found: dict[str, Any] = {
        "license": "unknown",
        "library_name": "hilum",
        "pipeline_tag": _CLASSIFICATION,
        "tags": [_SEGMENTATION, "medical", "radiology", "chest-x-ray", "onnx", "multi-task"],
    }
    if metrics:
        found["metrics"] = list(metrics)
        found["model-index"] = [{"name": manifest.name, "results": results}]
    return found


_USAGE = """
<!-- The bundle states no license. Set `license` above before you publish. -->

{not_a_device}

```python
import hilum

model = hilum.load("model.hilum")  # the bundle in this repository
result = model.predict("radiograph.png")
print(result.label, result.probabilities, result.prediction_set)
```

"""


def _results(manifest: Manifest) -> list[dict[str, Any]]:
    """One result per task: the test metrics over all sources whose value is known."""
    figures = [f for f in manifest.metrics.get("test", []) if f["source"] is None and f["value"] is not None]
    sources = ", ".join(manifest.sources)
    dataset: dict[str, Any] = {
        "type": "custom",
        "name": f"Test split of {sources}" if sources else "Test split",
        "split": "test",
    }
    if manifest.split_digest is not None:
        dataset["args"] = {"split_sha256": manifest.split_digest}
    found = []
    for task, title in _TASKS.items():
        own = [f for f in figures if (f["metric"] in _SEGMENTATION_METRICS) == (task == _SEGMENTATION)]
        if own:
            metrics = [_metric(figure) for figure in own]
            found.append({"task": {"type": task, "name": title}, "dataset": dataset, "metrics": metrics})
    return found


def _metric(figure: Mapping[str, Any]) -> dict[str, Any]:
    title = metric_title(figure["metric"], first=True)
    if figure["class_name"] is not None:
        title += f", {figure['class_name']}"
    spread = bounds(figure)
    arguments: dict[str, Any] = {"n": figure["n"]}
    if spread:
        arguments |= {"confidence_level": 0.95, "low": figure["low"], "high": figure["high"]}
    if figure["class_name"] is not None:
        arguments["class"] = figure["class_name"]
    return {
        "type": _HUB_METRICS.get(figure["metric"], figure["metric"]),
        "name": f"{title} ({f'95% CI {spread}, ' if spread else ''}n = {figure['n']:,})",
        "value": figure["value"],
        "args": arguments,
    }


def _yaml(value: Any, indent: int = 0) -> Iterator[str]:
    """Lines of YAML: block collections, scalars as in JSON, which YAML contains."""
    space = " " * indent
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, (Mapping, list)):
                yield f"{space}{key}:"
                yield from _yaml(item, indent + 2)
            else:
                yield f"{space}{key}: {_scalar(item)}"
        return
    for item in value:
        if isinstance(item, Mapping):
            first, *rest = _yaml(item, indent + 2)
            yield f"{space}- {first.strip()}"
            yield from rest
        else:
            yield f"{space}- {_scalar(item)}"


def _scalar(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")  # without a point, YAML 1.1 takes it for text
    return text

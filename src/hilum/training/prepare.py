"""Prepare the datasets of a run: index, check, split and cache the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from hilum.config import Config, PreprocessSpec
from hilum.data.cache import open_cache
from hilum.data.index import Index, build_index, load_index, save_index
from hilum.data.mirror import fetch_records
from hilum.data.split import Split, check_split, load_split, make_split, records_of, save_split
from hilum.errors import ConfigError, DataError
from hilum.progress import Progress, Step
from hilum.run_folder import RunFolder
from hilum.storage import cache_folder, write_json
from hilum.training.dataset import CachedDataset
from hilum.training.processes import here
from hilum.types import SPLIT_NAMES, SplitName


@dataclass(frozen=True)
class PreparedData:
    """Index, split and one dataset per split."""

    index: Index
    split: Split
    datasets: Mapping[SplitName, CachedDataset]


def index_and_split(config: Config, run: RunFolder, step: Step, *, anew: bool = False) -> tuple[Index, Split]:
    """Return the index and split of a run, from its folder if they exist, else newly created and saved.

    Args:
        config: All settings.
        run: The run's folder.
        step: Progress callbacks.
        anew: Replace an index and split in the folder.

    Raises:
        ConfigError: ``config.data`` is None.
        DataError: As for build_index.
        SplitError: As for make_split.
    """
    if not anew and run.index.exists() and run.split.exists():
        index, split = load_index(run.index), load_split(run.split)
        check_split(index, split)
        return index, split
    if config.data is None:
        raise ConfigError("No data to train on.", hint="Name a folder or a CSV file: hilum train DATA.")
    index = build_index(config.data, classes=config.classes, progress=step.begin("Checking files"))
    step.found(index.findings)
    split = choose_split(index, config)
    write_json(run.findings, [asdict(finding) for finding in index.findings])
    save_index(index, run.index)
    save_split(split, run.split)
    return index, split


def choose_split(index: Index, config: Config) -> Split:
    """Return the split in ``split.split_file`` if set, else the dataset's own or a drawn one.

    Raises:
        SplitError: As for load_split, check_split and make_split.
    """
    if config.split.split_file is None:
        return make_split(index, config.split)
    split = load_split(config.split.split_file)
    check_split(index, split)
    return split


def prepare(config: Config, run: RunFolder, step: Step | None = None, *, anew: bool = False) -> PreparedData:
    """Index, split and cache the dataset of the settings, and return the PreparedData.

    Args:
        config: All settings.
        run: The run's folder; with several processes, that of the first.
        step: Progress callbacks.
        anew: Replace an index and split in the folder.

    Raises:
        DataError: There are fewer than two classes, or as for index_and_split and open_cache.
    """
    step, processes = step or Step(), here()
    index, split = processes.from_first(index_and_split(config, run, step, anew=anew) if processes.first else None)
    if len(index.class_names) < 2:
        raise DataError(
            f"Expected at least 2 classes, got {', '.join(index.class_names) or 'none'}.",
            hint="Add class folders or a label column.",
        )
    if not processes.first and not processes.local_rank:  # on another machine
        fetch_records(index.records)
    if processes.local_rank:  # another process of this machine decodes
        processes.gather_objects(None)
    datasets = {
        name: open_dataset(index, split, name, config.preprocess, step.begin(f"Decoding {name}"))
        for name in SPLIT_NAMES
    }
    if not processes.local_rank:
        processes.gather_objects(None)
    return PreparedData(index, split, datasets)


def open_dataset(
    index: Index, split: Split, name: SplitName, spec: PreprocessSpec, progress: Progress | None = None
) -> CachedDataset:
    """Return the dataset of one split, decoded into the cache if necessary."""
    records = records_of(index, split, name)
    cache = open_cache(records, spec, cache_folder(), progress=progress)
    return CachedDataset(cache, records, index.class_names, spec)

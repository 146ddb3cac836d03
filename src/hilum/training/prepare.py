"""From a folder of radiographs to the three data sets of a run: index, check, split, cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from hilum.config import Config, PreprocessSpec
from hilum.data.cache import cache_folder, open_cache
from hilum.data.index import Index, build_index, load_index, save_index
from hilum.data.split import Split, check_split, load_split, make_split, records_of, save_split
from hilum.errors import ConfigError, DataError
from hilum.progress import Progress, Step
from hilum.run_folder import RunFolder
from hilum.storage import write_json
from hilum.training.dataset import CachedDataset
from hilum.types import SPLIT_NAMES, SplitName


@dataclass(frozen=True)
class PreparedData:
    """An index, its split, and one data set per split."""

    index: Index
    split: Split
    datasets: Mapping[SplitName, CachedDataset]


def index_and_split(config: Config, run: RunFolder, step: Step, *, anew: bool = False) -> tuple[Index, Split]:
    """Return the run's index and split: those in its folder if it has them, else new ones, which it then keeps.

    With ``anew`` those in the folder, which an attempt that failed may have left, are replaced.

    Raises:
        ConfigError: ``config.data`` is None.
        DataError, SplitError: See build_index and make_split.
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
    """Return the split of ``split.split_file`` where one is named, else the data's own, else a drawn one.

    Raises:
        SplitError: See load_split, check_split and make_split.
    """
    if config.split.split_file is None:
        return make_split(index, config.split)
    split = load_split(config.split.split_file)
    check_split(index, split)
    return split


def prepare(config: Config, run: RunFolder, step: Step | None = None, *, anew: bool = False) -> PreparedData:
    """Index, split and cache the data of ``config``; ``anew`` as in index_and_split."""
    step = step or Step()
    index, split = index_and_split(config, run, step, anew=anew)
    if len(index.class_names) < 2:
        raise DataError(
            f"A classifier needs at least 2 classes, the data have {', '.join(index.class_names) or 'none'}.",
            hint="Add class folders or a label column.",
        )
    datasets = {
        name: open_dataset(index, split, name, config.preprocess, step.begin(f"Decoding {name}"))
        for name in SPLIT_NAMES
    }
    return PreparedData(index, split, datasets)


def open_dataset(
    index: Index, split: Split, name: SplitName, spec: PreprocessSpec, progress: Progress | None = None
) -> CachedDataset:
    """Return the data set of one split, decoded into the cache if it is not there yet."""
    records = records_of(index, split, name)
    cache = open_cache(records, spec, cache_folder(), progress=progress)
    return CachedDataset(cache, records, index.class_names, spec)

"""Prediction on Ray: the predictor as a class for Ray Data's ``map_batches``, and ``hilum predict --engine ray``.

Each task predicts one shard of the table and writes it, so that a task that runs twice, or a run that is killed and
resumed, leaves the same files.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hilum.backends.open import BackendName, PrecisionName
from hilum.bundle.bundle import Bundle, load_bundle
from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.bundle.gate import GateName
from hilum.cpus import available_cpus
from hilum.errors import ConfigError, HilumError, OutputError, ServerError
from hilum.filesystems import OutputFolder, RemoteFile, file_of, is_uri
from hilum.imaging.reader_pool import ReaderPool
from hilum.inference.folder import FolderResult, check_table, summary_of
from hilum.inference.parquet import SHARD_ROWS, parquet_bytes, table_of_csv
from hilum.inference.predictor import Predictor as LocalPredictor
from hilum.inference.predictor import Source, Upload
from hilum.inference.ray_cluster import Cluster, require_ray
from hilum.inference.run_manifest import RunManifest, claimed, describe_files
from hilum.inference.saving import Wanted
from hilum.inference.settings import PredictorSettings
from hilum.inference.shards import FolderRun, ImageFile, rows_of, save_result
from hilum.inference.table import table_header

if TYPE_CHECKING:
    import pyarrow

ImageColumn = Literal["masks", "evidence", "overlays"]
IMAGE_COLUMNS: Mapping[str, str] = {"masks": "mask", "evidence": "evidence", "overlays": "overlay"}
"""Columns of images in a table, by the name of the folder that their files would have."""

_NO_FILES = Wanted()
_THIS_MACHINE = Cluster()

_RETRIES = 3
"""How often a shard is predicted again after the process that did it died."""


class Predictor:
    """The predictor as a stateful class for ``ray.data.Dataset.map_batches``.

    Batches have a column ``path`` and, if the files are read already (``ray.data.read_binary_files``), ``bytes``. The
    result has the columns of ``predictions.parquet``, one row per image, refused and unreadable ones included.

    Args:
        bundle: A bundle, its path, or ``default``.
        backend: The inference engine.
        device: Device of the engine.
        precision: Precision of the engine.
        gate: The input check.
        fix_orientation: Undo rotations and inverted gray scale before the prediction.
        batch_size: Maximum number of images per forward pass.
        threads: Threads, each of which takes images from the file to the row; the ``num_cpus`` of the actor.
        images: Images to add as PNG in binary columns: ``masks`` as ``mask``, ``evidence``, ``overlays`` as
            ``overlay``.
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str] = DEFAULT,
        *,
        backend: BackendName = "auto",
        device: str = "cpu",
        precision: PrecisionName = "auto",
        gate: GateName = "learned",
        fix_orientation: bool = False,
        batch_size: int = 8,
        threads: int = 1,
        images: Collection[ImageColumn] = (),
    ) -> None:
        bundle = bundle if isinstance(bundle, Bundle) else load_bundle(resolve_bundle(bundle))
        settings = PredictorSettings(bundle, backend, device, precision, gate, fix_orientation, batch_size, threads)
        self._predictor = settings.open(read=ReaderPool(threads).read_radiograph)
        self._save = columns_wanted(images)
        self._save.check(self._predictor.manifest)

    def __call__(self, batch: Mapping[str, Any] | pyarrow.Table) -> pyarrow.Table:
        """Return the table of a batch, which is an Arrow table or arrays by column."""
        names = [str(name) for name in _column(batch, "path")]
        contents = _column(batch, "bytes")
        files: list[ImageFile] = [file_of(name) for name in names]
        sources: list[Source] = [
            file if content is None else Upload(content, name)
            for file, name, content in zip(files, names, contents or [None] * len(names), strict=True)
        ]
        return predicted_table(self._predictor, files, sources, self._save, {}, None, total=None)


def _column(batch: Mapping[str, Any] | pyarrow.Table, name: str) -> list[Any]:
    """Return a column as Python objects; an empty list if there is none."""
    if isinstance(batch, Mapping):
        return list(batch.get(name, []))
    return list(batch[name].to_pylist()) if name in batch.column_names else []


def _is_absolute(file: ImageFile) -> bool:
    return isinstance(file, RemoteFile) or file.is_absolute()


def columns_wanted(images: Collection[str]) -> Wanted:
    """Return the selection of images for columns of a table.

    Raises:
        ConfigError: A name is unknown.
    """
    if unknown := {*images} - {*IMAGE_COLUMNS}:
        raise ConfigError(f"Unknown images {sorted(unknown)}.", hint=f"Choose from {', '.join(IMAGE_COLUMNS)}.")
    return Wanted(masks="masks" in images, evidence="evidence" in images, overlays="overlays" in images)


def predicted_table(
    predictor: LocalPredictor,
    files: Sequence[ImageFile],
    sources: Sequence[Source],
    save: Wanted,
    names: Mapping[ImageFile, str],
    write: Callable[[str, bytes], None] | None,
    *,
    total: int | None,
) -> pyarrow.Table:
    """Return the table of some images.

    Args:
        predictor: The predictor.
        files: The files, for the column ``file``.
        sources: What to read for each of them.
        save: Images to save.
        names: Names of the saved files.
        write: Writes a file; None for images in columns.
        total: Number of images of the whole prediction.
    """
    import pyarrow

    by_source = dict(zip(map(id, sources), files, strict=True))

    def work(source: Source, result: Any) -> Any:
        return save_result(by_source[id(source)], result, predictor=predictor, names=names, save=save, write=write)

    header = table_header(predictor.manifest, with_step=save.evidence)
    results = zip(files, predictor.process(sources, work, total=total), strict=True)
    content, images = rows_of(results, header, predictor, save)
    table = table_of_csv(content)
    for folder, column in IMAGE_COLUMNS.items() if write is None else ():
        if getattr(save, folder):
            values = pyarrow.array([made.get(folder) for made in images], pyarrow.binary())
            table = table.append_column(column, values)
    return table


class ShardWriter:
    """An actor that predicts on the files of shards and writes their Parquet files.

    Args:
        place: The output folder.
        save: Images and DICOM objects to save.
        in_columns: Whether images become columns instead of files.
        total: Number of images of the whole prediction.
        folder: What relative names of files are relative to; None if there are none.
    """

    def __init__(self, place: OutputFolder, save: Wanted, in_columns: bool, total: int, folder: str | None) -> None:
        if folder is not None:
            os.chdir(folder)  # so that names in messages are those of a local run
        self._predictor: LocalPredictor | None = None
        self._place, self._save, self._total = place, save, total
        self._write = None if in_columns else place.write

    def write(
        self, stored: Sequence[Any], name: str, files: Sequence[ImageFile], names: Mapping[ImageFile, str]
    ) -> int:
        """Write a shard and return the number of its rows.

        Args:
            stored: Reference to the settings of the predictor, in a list, so that it is read for the first shard only.
            name: Name of the shard's file.
            files: Its images.
            names: Names of their saved files.
        """
        if self._predictor is None:
            import ray

            settings: PredictorSettings = ray.get(stored[0])
            read = ReaderPool(settings.threads or available_cpus()).read_radiograph
            self._predictor = settings.open(read=read)
        table = predicted_table(self._predictor, files, files, self._save, names, self._write, total=self._total)
        self._place.write(name, parquet_bytes(table))
        return int(table.num_rows)


def _written(
    run: FolderRun, pending: Sequence[range], arguments: Sequence[Any], cluster: Cluster, workers: int
) -> Iterator[int]:
    """Predict on the pending shards on Ray, and yield the number of rows of each that is written.

    Args:
        run: The prediction.
        pending: The shards.
        arguments: The settings of the predictor, and the arguments of ShardWriter.
        cluster: What each actor gets.
        workers: Number of actors, at most.
    """
    import ray

    settings, *others = arguments
    stored = [ray.put(settings)]  # once, with the bundle in it
    actor_class: Any = ray.remote(ShardWriter).options(num_cpus=cluster.cpus, num_gpus=cluster.gpus or None)
    actors: list[Any] = []

    def start() -> Any:
        actors.append(actor_class.remote(*others))
        return actors[-1]

    try:
        yield from _rows_of_actors(run, pending, start, min(workers, len(pending)), stored)
    finally:
        for actor in actors:  # an exception keeps references to them, and they their processors
            ray.kill(actor)


def _rows_of_actors(
    run: FolderRun, pending: Sequence[range], start: Callable[[], Any], workers: int, stored: Sequence[Any]
) -> Iterator[int]:
    """Hand the pending shards to actors, and yield the number of rows of each that is written.

    An actor gets a shard when it has written its last one. One that dies is replaced, not restarted by Ray, which fails
    the calls of an actor while it restarts. Its shard is predicted by the next that is idle.

    Args:
        run: The prediction.
        pending: The shards.
        start: Starts an actor.
        workers: Number of actors.
        stored: See ShardWriter.write.
    """
    import ray

    left, idle, written = deque(pending), deque[Any](), 0
    deaths = Counter[range | None]()  # by shard; None: before the first one, since an actor has last started
    running: dict[Any, tuple[Any, range | None]] = {}
    for actor in [start() for _ in range(workers)]:
        running[actor.__ray_ready__.remote()] = actor, None
    while written < len(pending):
        (done,), _ = ray.wait([*running], num_returns=1)
        actor, shard = running.pop(done)
        try:
            rows = ray.get(done)
        except ray.exceptions.RayActorError as error:
            ray.kill(actor)  # one that does not answer may be alive
            deaths[shard] += 1
            if deaths[shard] > _RETRIES:
                raise _died(run, shard) from error
            if shard is not None:
                left.appendleft(shard)
            actor = start()
            running[actor.__ray_ready__.remote()] = actor, None
        except ray.exceptions.RayError as error:
            raise _cause(error) from error
        else:
            idle.append(actor)
            deaths[None] = 0
            if shard is not None:
                written += 1
                yield rows
        while left and idle:
            actor, shard = idle.popleft(), left.popleft()
            files = run.files[shard.start : shard.stop]
            names = {file: run.names[file] for file in files} if run.names else {}
            running[actor.write.remote(stored, run.name_of(shard), files, names)] = actor, shard


def _died(run: FolderRun, shard: range | None) -> ServerError:
    """Return the error of a shard on which as many processes died as may; None: of a process before its first one."""
    if shard is None:
        what = "A process died"
    else:
        images = f"'{run.files[shard.start]}' to '{run.files[shard.stop - 1]}' ({len(shard):,} images)"
        what = f"The process that predicted on {images} died"
    return ServerError(
        f"{what} {_RETRIES + 1} times.",
        hint="Leave out the image that ends it, or give processes more memory (fewer --workers). Completed shards are "
        "kept.",
    )


def _cause(error: BaseException) -> HilumError:
    """Return the error of a worker."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, HilumError):
            return seen
        inner = getattr(seen, "cause", None)
        seen = inner if isinstance(inner, BaseException) else seen.__cause__
    first = str(error).strip().splitlines()
    return ServerError(
        f"Ray could not finish: {first[-1] if first else type(error).__name__}.",
        hint="Run the command again; completed shards are kept.",
    )


def predict_on_ray(
    settings: PredictorSettings,
    files: Sequence[ImageFile],
    out: Path | str,
    *,
    cluster: Cluster = _THIS_MACHINE,
    save: Wanted = _NO_FILES,
    in_columns: bool = False,
    shard_rows: int = SHARD_ROWS,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> FolderResult:
    """Predict on files with Ray, and write the folder that ``predict_folder`` writes with ``parquet``.

    Args:
        settings: Settings of the predictor.
        files: The files, which every worker must be able to open by the same name.
        out: Output folder that all machines share, or its address on an object store.
        cluster: Where Ray runs.
        save: Images and DICOM objects to save for each file.
        in_columns: Store masks, evidence and overlays as PNG in columns of the table instead of files.
        shard_rows: Rows of each Parquet file, which is also the work that is lost when a worker dies.
        overwrite: Delete the table of an earlier prediction in ``out``, and predict on all files.
        progress: Called with (files done, total files), without those that an earlier run did.

    Raises:
        MissingExtraError: Ray is not installed; nothing is written.
        ConfigError: As predict_folder; there is no cluster; or DICOM objects are wanted in columns.
        OutputError: As predict_folder; or this machine does not see the shards that workers wrote.
    """
    require_ray()
    check_table("parquet", shard_rows, out)
    if in_columns and save.kinds:
        raise ConfigError("DICOM objects cannot be stored in columns.", hint="Leave out --image-columns.")
    predictor = settings.open()
    save.check(predictor.manifest)
    kept = {"image_columns": True} if in_columns else {}
    manifest = RunManifest.of(predictor, describe_files(files), save, format="parquet", shard_rows=shard_rows, **kept)
    settings = replace(settings, threads=cluster.cpus)
    out = out if is_uri(out) else Path(out).absolute()
    with claimed(out, manifest, overwrite=overwrite) as place:
        run = FolderRun(predictor, files, place, save, shard_rows)
        pending, resumed = run.count_finished(), run.done
        if pending:
            with cluster.connected() as workers:
                folder = None if all(map(_is_absolute, files)) else str(Path.cwd())
                writer = (settings, place, save, in_columns, len(files), folder)
                left, done = len(files) - resumed, 0
                for rows in _written(run, pending, writer, cluster, workers):
                    done += rows
                    if progress:
                        progress(done, left)
            run = FolderRun(predictor, files, place, save, shard_rows)
            if missing := run.count_finished():
                raise OutputError(
                    f"'{place}' lacks {len(missing)} shards that workers wrote.",
                    hint="Choose an --output that all machines share.",
                )
        run.resume([])
    return summary_of(run, resumed)

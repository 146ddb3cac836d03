"""Where Ray runs: connect to a cluster, or start one on this machine, with the processors that workers need."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hilum.cpus import available_cpus
from hilum.errors import ConfigError, MissingExtraError, ServerError, extra_hint


def require_ray() -> None:
    """Check that Ray is installed.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    try:
        import ray  # noqa: F401  # not ray.data, which takes seconds in each process
    except ModuleNotFoundError as error:
        raise MissingExtraError("--engine ray needs Ray, which is not installed.", hint=extra_hint("ray")) from error


@dataclass(frozen=True)
class Cluster:
    """Where Ray runs, and what each worker gets.

    Attributes:
        address: Address of a running cluster; None starts one on this machine.
        workers: Number of processes that predict; as many as the processors allow by default.
        cpus: Processors of each worker.
        gpus: GPUs of each worker.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int = 1
    gpus: float = 0

    @contextmanager
    def connected(self) -> Iterator[int]:
        """Connect to Ray, and yield the number of workers.

        Raises:
            MissingExtraError: Ray is not installed.
            ConfigError: No cluster answers at the address, or it has too few processors.
            ServerError: Ray does not start on this machine.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        require_ray()
        import ray

        workers = self.workers or (max(1, available_cpus() // self.cpus) if self.address is None else None)
        started = not ray.is_initialized()
        if started:
            self._start(workers)
        try:
            cpus = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
            if cpus < self.cpus * (workers or 1):
                raise ConfigError(
                    f"The cluster has {cpus} processors, fewer than {workers or 1} workers with {self.cpus} need.",
                    hint="Use fewer --workers, or fewer --cpus-per-worker.",
                )
            yield workers or cpus // self.cpus
        finally:
            if started:
                ray.shutdown()

    def _start(self, workers: int | None) -> None:
        """Connect to the cluster, or start Ray on this machine for as many workers; errors as ``connected``."""
        import ray

        options: dict[str, Any] = {"address": self.address or "local", "logging_level": logging.WARNING}
        if self.address is None:
            assert workers is not None
            options |= {
                "num_cpus": workers * self.cpus,
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
            }
        try:
            ray.init(log_to_driver=False, **options)
        except Exception as error:  # Ray raises this class itself where its processes do not start in time
            if self.address is None:
                raise ServerError(
                    f"Ray does not start on this machine: {str(error).rstrip('.')}.",
                    hint="Run the command again, at a lower load.",
                ) from error
            raise ConfigError(
                f"Cannot connect to Ray at '{self.address}': {error}.", hint="Check --ray-address."
            ) from error

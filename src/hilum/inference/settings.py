"""Settings from which a predictor is opened, in this process or in another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hilum.backends.base import Backend
from hilum.backends.open import BackendName, PrecisionName, open_backend
from hilum.bundle.bundle import Bundle, Manifest
from hilum.bundle.gate import GateName, open_gate
from hilum.imaging.read import read_radiograph
from hilum.inference.predictor import Predictor
from hilum.types import Radiograph


@dataclass(frozen=True)
class PredictorSettings:
    """Arguments of a Predictor that can be sent to another process.

    Attributes:
        bundle: The bundle.
        backend: Name of the inference engine.
        device: Device of the engine.
        precision: Precision of the engine.
        gate: Name of the input check.
        fix_orientation: See Predictor.
        batch_size: See Predictor.
        threads: See Predictor.
    """

    bundle: Bundle
    backend: BackendName = "auto"
    device: str = "cpu"
    precision: PrecisionName = "auto"
    gate: GateName = "learned"
    fix_orientation: bool = False
    batch_size: int = 8
    threads: int | None = None

    @property
    def manifest(self) -> Manifest:
        """Manifest of the bundle."""
        return self.bundle.manifest

    def open(self, backend: Backend | None = None, read: Callable[..., Radiograph] = read_radiograph) -> Predictor:
        """Return the predictor.

        Args:
            backend: The engine, if it is open already.
            read: See Predictor.

        Raises:
            HilumError: As hilum.backends.open.open_backend, hilum.bundle.gate.open_gate and Predictor.
        """
        return Predictor(
            self.bundle,
            backend=backend or open_backend(self.bundle, self.backend, self.device, self.precision),
            gate=open_gate(self.bundle, self.gate),
            batch_size=self.batch_size,
            fix_orientation=self.fix_orientation,
            threads=self.threads,
            read=read,
        )

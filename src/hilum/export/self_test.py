"""Make the self-test of a bundle: a synthetic radiograph, and what the exported network answers to it."""

from __future__ import annotations

import numpy as np

from hilum.backends.base import Backend
from hilum.bundle.self_test import SelfTest
from hilum.config import PreprocessSpec
from hilum.imaging.convert import radiograph_of
from hilum.imaging.preprocess import fit_image, to_input
from hilum.phantoms.chest import draw_phantom

_SEED = 0
_LABEL = "Lung_Opacity"
_SIZE = 256


def make_self_test(backend: Backend, spec: PreprocessSpec) -> SelfTest:
    """Return a synthetic radiograph with the outputs of ``backend`` for it.

    The image is stored, not drawn again, so that later versions of hilum test the same one.

    Args:
        backend: The network in float32.
        spec: Its preprocessing.
    """
    phantom = draw_phantom(_SEED, _LABEL, size=_SIZE)
    image = fit_image(radiograph_of(phantom.image), spec)
    output = backend.run(to_input(image[None], spec))._asdict()
    return SelfTest(
        image, {name: np.ascontiguousarray(values[0]) for name, values in output.items() if values is not None}
    )

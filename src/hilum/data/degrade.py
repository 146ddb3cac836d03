"""What scanners, resampling and file formats do to a film: blur, lost resolution, JPEG. They tell the source, too."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray


def degrade(image: torch.Tensor, blur: torch.Tensor, coarsen: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """Each film by its own numbers; one that has nothing drawn stays as it is, to the bit.

    Works film by film in 8 bits of grey on the CPU, where the codec is; a colour input (C = 3) comes back grey.

    Args:
        image: (N, C, S, S) float32 in [0, 1].
        blur: (N,) sigma of a Gaussian as a fraction of S; 0 for none.
        coarsen: (N,) factor on S in (0, 1]: the film is made smaller by it (area), then restored (cubic).
        quality: (N,) int64, of JPEG, 1 to 100; 0 for none.
    """
    rows = torch.nonzero((blur > 0) | (coarsen < 1) | (quality > 0)).flatten().tolist()
    if not rows:
        return image
    image = image.clone()
    for row in rows:
        film = (image[row, 0] * 255).round().to(torch.uint8).cpu().numpy()
        changed = _degraded(film, float(blur[row]), float(coarsen[row]), int(quality[row]))
        image[row] = torch.from_numpy(changed.astype(np.float32) / 255).to(image.device)
    return image


def _degraded(film: NDArray[np.uint8], blur: float, coarsen: float, quality: int) -> NDArray[np.uint8]:
    side = film.shape[0]
    changed = film
    if blur > 0:
        changed = cv2.GaussianBlur(changed, (0, 0), blur * side).astype(np.uint8)
    if coarsen < 1:
        small = max(8, round(coarsen * side))
        changed = cv2.resize(changed, (small, small), interpolation=cv2.INTER_AREA).astype(np.uint8)
        changed = cv2.resize(changed, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    if quality:
        _, coded = cv2.imencode(".jpg", changed, [cv2.IMWRITE_JPEG_QUALITY, quality])
        changed = np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.uint8)
    return changed

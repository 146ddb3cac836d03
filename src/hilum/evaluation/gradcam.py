"""Compute Grad-CAM (Selvaraju et al. 2017, ICCV), the baseline for a network's own evidence.

The features are the last spatial ones before pooling: those of the neck for ``evidence``, the deepest of the encoder
for ``encoder-unet``, and the last of the whole backbone, at the size of the image, for ``unet``. Where one linear layer
follows a plain mean (``encoder-unet``), the map is exactly the positive part of the evidence (ibid., section 3.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hilum.errors import ConfigError

_FEATURES = ("neck", "encoder", "backbone")
"""The module whose (last) output the classifier pools, by the name that hilum.models gives it."""


def grad_cam(
    network: nn.Module, images: NDArray[np.float32], classes: NDArray[np.int64], *, batch_size: int = 16
) -> NDArray[np.float32]:
    """Return the map of one class for each image: features weighted by the mean gradient of the logit, rectified.

    The network is put into evaluation mode. No gradient stays on its parameters, and no hook on its modules.

    Args:
        network: A network of hilum.models.
        images: (N, C, S, S) float32 in [0, 1], N at least 1.
        classes: (N,) int64 in [0, K).
        batch_size: Images in one forward pass.

    Returns:
        (N, h, w) float32, not negative, on the grid of the features.

    Raises:
        ConfigError: The network has no module whose features are known here.
    """
    module = next((getattr(network, name) for name in _FEATURES if hasattr(network, name)), None)
    if module is None:
        raise ConfigError(f"Grad-CAM needs a network with {' or '.join(_FEATURES)}, got {type(network).__name__}.")
    network.eval()
    device = next(network.parameters()).device
    maps = []
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size])).to(device)
        chosen = torch.from_numpy(classes[start : start + batch_size]).to(device)
        maps.append(_one_batch(network, module, batch, chosen))
    return np.concatenate(maps)


def _one_batch(
    network: nn.Module, module: nn.Module, batch: torch.Tensor, classes: torch.Tensor
) -> NDArray[np.float32]:
    kept: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        kept.append(output[-1] if isinstance(output, list | tuple) else output)

    hook = module.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = network(batch.requires_grad_()).class_logits  # (N, K); a frozen network needs a graph, too
            wanted = logits.gather(1, classes[:, None]).sum()
            (gradient,) = torch.autograd.grad(wanted, kept[0])
    finally:
        hook.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # (N, F, 1, 1)
    maps = torch.relu((weights * kept[0].detach()).sum(dim=1))  # (N, h, w)
    return np.asarray(maps.cpu().numpy(), np.float32)

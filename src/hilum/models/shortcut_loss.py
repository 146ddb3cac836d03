"""The loss of films that have no label any more: lungs erased, or an opacity drawn into a normal film."""

from __future__ import annotations

import torch
from torch.nn import functional

from hilum.data.treatments import ERASED, LESION, Treated
from hilum.models.losses import Extra
from hilum.types import ModelOutput

_TINY = 1e-6


def shortcut_loss(output: ModelOutput, treated: Treated, normal: int | None, localisation_weight: float) -> Extra:
    """Summed over the films: towards the uniform answer, away from normal, and the evidence into the drawn region.

    - erased: the Kullback-Leibler divergence of the answer from the uniform one, in nats;
    - lesion: -log(1 - p(normal)), plus ``localisation_weight`` times -log of the share that the region holds of the
      positive evidence of all classes but ``normal``. A network without evidence has the first part alone.

    Args:
        output: of the treated films.
        treated: from hilum.data.treatments.
        normal: the number of the class without findings.
        localisation_weight: at least 0.
    """
    logits = output.class_logits.float()
    kind = treated.kind.to(logits.device)
    log_p = functional.log_softmax(logits, dim=1)
    erased, lesion = kind == ERASED, kind == LESION
    films = int((erased | lesion).sum())
    total = logits.new_zeros(())
    if bool(erased.any()):
        classes = logits.shape[1]
        total = total + (-log_p[erased].mean(dim=1) - torch.log(logits.new_tensor(float(classes)))).sum()
    if bool(lesion.any()) and normal is not None:
        others = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
        others[normal] = False
        total = total - torch.logsumexp(log_p[lesion][:, others], dim=1).sum()
        if output.evidence is not None and localisation_weight:
            found = output.evidence[lesion][:, others].float().clamp(min=0).sum(dim=1)  # (L, h, w)
            region = functional.adaptive_max_pool2d(treated.region[lesion], found.shape[-2:])[:, 0]
            share = ((found * region).sum(dim=(1, 2)) + _TINY) / (found.sum(dim=(1, 2)) + _TINY)
            total = total - localisation_weight * share.log().sum()
    return Extra(total, films)

"""MixUp and CutMix on stored rows: augmentation that needs no pass of the trunk."""

from dataclasses import dataclass

import torch

from recycle_cli.batches.several import each_rows
from recycle_cli.batches.source import Tensors
from recycle_cli.errors import DataError


@dataclass(frozen=True)
class Mix:
    """How a batch was mixed: sample i is `share` of itself, and the rest of sample `partners[i]`."""

    partners: torch.Tensor
    share: float


def mixed(rows: torch.Tensor, *, mixup: float, cutmix: float) -> tuple[torch.Tensor, Mix | None]:
    """Rows (B, 1, *shape) mixed with those of another order of the batch, by one share for all, Beta(a, a).

    mixup   a of MixUp: the weighted mean of two samples' rows (Zhang et al. 2018; between layers: Verma et al. 2019)
    cutmix  a of CutMix: a box of the other sample's map in place of its own (Yun et al. 2019)
    If both are above 0, each batch draws one of them. The draws come from torch's generator, which a resume restores.
    Raises DataError if CutMix gets rows that are no maps (C, H, W).
    """
    if not mixup and not cutmix:
        return rows, None
    partners = torch.randperm(len(rows))
    cuts = bool(cutmix) and (not mixup or float(torch.rand(())) < 0.5)
    strength = torch.tensor(cutmix if cuts else mixup)
    share = float(torch.distributions.Beta(strength, strength).sample())
    if not cuts:
        return share * rows + (1 - share) * rows[partners.to(rows.device)], Mix(partners, share)
    return _cut(rows, partners, share)


def mixed_batch(batch: Tensors, *, mixup: float, cutmix: float) -> tuple[Tensors, Mix | None]:
    """A batch with its rows mixed; those of several cuts, which CutMix does not take, with the same samples and in the
    same shares."""
    (name, rows), *others = each_rows(batch).items()
    mixture, mix = mixed(rows, mixup=mixup, cutmix=cutmix)
    if mix is None:
        return batch, None
    same = {other: mix.share * own + (1 - mix.share) * own[mix.partners.to(own.device)] for other, own in others}
    return {**batch, name: mixture, **same}, mix


def _cut(rows: torch.Tensor, partners: torch.Tensor, share: float) -> tuple[torch.Tensor, Mix]:
    if rows.dim() != 5:
        raise DataError(
            f"--cutmix needs maps of channels, height and width, not rows of shape {tuple(rows.shape[2:])}; use --mixup"
        )
    height, width = rows.shape[-2:]
    h, w = round(height * (1 - share) ** 0.5), round(width * (1 - share) ** 0.5)
    top, left = int(torch.randint(height - h + 1, ())), int(torch.randint(width - w + 1, ()))
    box = (..., slice(top, top + h), slice(left, left + w))
    mixture = rows.clone()
    mixture[box] = rows[partners.to(rows.device)][box]
    return mixture, Mix(partners, 1 - h * w / (height * width))

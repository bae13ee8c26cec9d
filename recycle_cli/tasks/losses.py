"""Losses on the distances between the samples of a batch, of which those of one group are to lie together."""

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by


def batch_hard_triplet(outputs: torch.Tensor, groups: torch.Tensor, margin: float) -> torch.Tensor:
    """relu((d+_i - d-_i) / mean(d-) + margin) of each sample i, with d = (1 - cos) / 2; outputs (B, E), groups (B,).

    d+_i is the distance to the farthest sample of i's own group in the batch, d-_i that to the nearest of another.
    Dividing by the mean of d- keeps the vectors from falling together. Samples without either have no term, so that
    there may be none. Source: batch-hard mining (Hermans et al. 2017), the scaling from Quaterion's TripletLoss.
    """
    own, other = _pairs(groups)
    some = own.any(dim=1) & other.any(dim=1)
    if not some.any():
        return outputs.float().sum(dim=1)[:0]
    vectors = F.normalize(outputs.float(), dim=1)
    distances = ((1 - vectors @ vectors.T) / 2)[some]
    farthest = distances.masked_fill(~own[some], -torch.inf).amax(dim=1)
    nearest = distances.masked_fill(~other[some], torch.inf).amin(dim=1)
    scale = nearest.mean().clamp_min(1e-6)
    return F.relu((farthest - nearest) / scale + margin)


def supervised_contrastive(outputs: torch.Tensor, groups: torch.Tensor, temperature: float) -> torch.Tensor:
    """-1/|P(i)| sum_p log(exp(z_i z_p / t) / sum_{a != i} exp(z_i z_a / t)) of each sample i.

    Outputs (B, E), groups (B,). z are the outputs at length one, P(i) the other samples of i's group in the batch;
    samples without any have no term, so that there may be none. Source: L_out of Supervised Contrastive Learning
    (Khosla et al. 2020).
    """
    own, _ = _pairs(groups)
    some = own.any(dim=1)
    if not some.any():
        return outputs.float().sum(dim=1)[:0]
    vectors = F.normalize(outputs.float(), dim=1)
    similarity = vectors @ vectors.T / temperature
    itself = torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    shares = similarity - similarity.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    return -((shares * own).sum(dim=1)[some] / own.sum(dim=1)[some])


def _pairs(groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which pairs (B, B) are two samples of one group, and which are of two groups."""
    same = groups[:, None] == groups[None, :]
    return same & ~torch.eye(len(groups), dtype=torch.bool, device=groups.device), ~same

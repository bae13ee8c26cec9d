"""Losses on the cosines of pairs: with the others of a batch as negatives, or against scores."""

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by


def multiple_negatives(
    first: torch.Tensor, second: torch.Tensor, contents: tuple[torch.Tensor, torch.Tensor], scale: float
) -> torch.Tensor:
    """1/2 [CE(scale S) + CE(scale S^T)] of each pair, S = (1 + cos) / 2, the target the diagonal: vectors (B, E) twice.

    `contents` (B,) twice: numbers of the texts, the same for equal texts. Two pairs with the same first text, or the
    same second one, are no negatives of each other. Source: symmetric Multiple Negatives Ranking (Henderson et al.
    2017) as in Quaterion's example of questions and answers.
    """
    similarity = scale * (1 + F.normalize(first.float(), dim=1) @ F.normalize(second.float(), dim=1).T) / 2
    same = (contents[0][:, None] == contents[0][None, :]) | (contents[1][:, None] == contents[1][None, :])
    partners = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    similarity = similarity.masked_fill(partners, -torch.inf)
    wanted = torch.arange(len(similarity), device=similarity.device)
    both = [F.cross_entropy(one, wanted, reduction="none") for one in (similarity, similarity.T)]
    return (both[0] + both[1]) / 2


def cosent(cosines: torch.Tensor, scores: torch.Tensor, scale: float) -> torch.Tensor:
    """log(1 + sum exp(scale (cos_j - cos_i))) over all pairs i, j of which i has the higher score: (B,) twice.

    Source: CoSENT (Su 2022), as in sentence-transformers.
    """
    higher = scores[:, None] > scores[None, :]
    gaps = scale * (cosines[None, :] - cosines[:, None])[higher]
    return torch.logsumexp(torch.cat([gaps.new_zeros(1), gaps]), dim=0)

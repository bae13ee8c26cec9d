"""How well each text of a pair finds its partner among all texts: reciprocal rank, precision, recall, NDCG."""

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from recycle_cli.tasks.retrieval import VALUES_AT_ONCE

K = 10
"""Places that recall and NDCG look at."""


def partner_figures(embeddings: torch.Tensor, contents: torch.Tensor) -> dict[str, float]:
    """Means over all texts, 0 to 1, from embeddings (2n, E) and numbers of contents (2n,); a pair is two neighbours.

    rrk             1 over the place of the nearest partner
    precision_at_1  whether the nearest is a partner
    recall_at_10    the share of the partners among the ten nearest
    ndcg_at_10      discounted gain of the partners among the ten nearest, as a share of the best

    Each text is compared by cosine with all texts but itself, of which each content counts once; its partners are all
    that it is paired with anywhere in the data. At equal cosine a partner comes last.
    """
    numbers, places = np.unique(contents.numpy(), return_index=True)
    order = {number: place for place, number in enumerate(numbers.tolist())}
    own = torch.tensor([order[number] for number in contents.tolist()])
    vectors = F.normalize(embeddings[torch.from_numpy(places)].float(), dim=1)
    partners: dict[int, set[int]] = {}
    for first, second in own.reshape(-1, 2).tolist():
        partners.setdefault(first, set()).add(second)
        partners.setdefault(second, set()).add(first)
    each = torch.zeros(len(vectors), 4, dtype=torch.float64)
    step = max(1, VALUES_AT_ONCE // len(vectors))
    for start in range(0, len(vectors), step):
        some = torch.arange(start, min(start + step, len(vectors)))
        each[some] = _figures(vectors[some] @ vectors.T, some, partners)
    names = ("rrk", "precision_at_1", f"recall_at_{K}", f"ndcg_at_{K}")
    return dict(zip(names, each[own].mean(dim=0).tolist(), strict=True))


def _figures(similarity: torch.Tensor, some: torch.Tensor, partners: Mapping[int, set[int]]) -> torch.Tensor:
    similarity[torch.arange(len(some)), some] = -torch.inf
    found = torch.zeros(len(some), 4, dtype=torch.float64)
    for row, number in enumerate(some.tolist()):
        right = torch.tensor(sorted(partners[number] - {number}), dtype=torch.int64)
        if not len(right):
            continue
        own = similarity[row, right].sort(descending=True).values
        all_before = (similarity[row][None, :] >= own[:, None]).sum(dim=1)
        right_before = (own[None, :] > own[:, None]).sum(dim=1) + (own[None, :] == own[:, None]).sum(dim=1)
        ranks = (all_before - right_before + torch.arange(1, len(own) + 1)).tolist()
        gain = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= K)
        best = sum(1 / math.log2(place + 1) for place in range(1, min(K, len(ranks)) + 1))
        found[row] = torch.tensor(
            [1 / ranks[0], float(ranks[0] == 1), sum(rank <= K for rank in ranks) / len(ranks), gain / best]
        )
    return found

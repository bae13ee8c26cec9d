"""Retrieval R-precision: how much of what is nearest to a sample is of its own group."""

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

VALUES_AT_ONCE = 1 << 24
"""Similarities computed at once, which take 64 MiB; those of 50,000 samples together would take 10 GB."""


def r_precision(embeddings: torch.Tensor, groups: torch.Tensor) -> float:
    """The share of the R nearest that are of a sample's own group, over all samples; embeddings (n, E), groups (n,).

    R is the number of other samples of the group; the lists of all samples are pooled, so that each of their places
    counts the same. A sample is not its own neighbour. Near is by cosine; samples at equal distance share the last
    places. Samples alone in their group have no list, and without any list the figure is 0.
    Source: Quaterion's RetrievalRPrecision.
    """
    vectors = F.normalize(embeddings.float(), dim=1)
    wanted = torch.bincount(groups)[groups] - 1
    queries = torch.argsort(wanted)[int((wanted == 0).sum()) :]
    found = torch.zeros((), dtype=torch.float64)
    step = max(1, VALUES_AT_ONCE // len(vectors))
    for start in range(0, len(queries), step):
        some = queries[start : start + step]
        near = vectors[some] @ vectors.T
        near[torch.arange(len(some)), some] = -torch.inf
        own, r = groups[some][:, None] == groups[None, :], wanted[some]
        last = near.topk(int(r.max()), dim=1).values.gather(1, r[:, None] - 1)
        nearer, level = near > last, near == last
        places = r - nearer.sum(dim=1)
        shared = places * (own & level).sum(dim=1) / level.sum(dim=1)
        found += (own & nearer).sum() + shared.double().sum()
    return float(found / max(1, int(wanted.sum())))

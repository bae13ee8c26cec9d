"""A head in training on several ranks: each computes its share of a batch, and all of them the loss of the whole."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
import xxhash
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

from recycle_cli.batches import Indices, Shares, Tensors, places_in, subset
from recycle_cli.errors import RankError
from recycle_cli.models.outputs import Outputs
from recycle_cli.runs import State
from recycle_cli.runtime.ranks import Ranks
from recycle_cli.training.head import Head
from recycle_cli.training.parallel.batch_norm import WholeBatchNorm
from recycle_cli.training.parallel.traffic import Seen, Traffic, summing


class _Trained(nn.Module):
    """A head with no parameters and buffers but those weights that train now: all that is sent."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self._head = (head,)  # in a tuple: as a module it would bring all that it has
        self.trained = nn.ParameterList(one for one in head.weights.values() if one.requires_grad)
        # DDP is to look for weights that a batch does not reach, such as those of an expert without tokens, and to
        # leave them alone. Where it finds none it warns of the time that looking takes; so there is always this one.
        self.idle = nn.Parameter(self.trained[0].new_zeros(1))

    def forward(self, batch: Tensors) -> Outputs:
        outputs: Outputs = self._head[0](batch)
        return outputs


class Parallel:
    """What makes N ranks do what one process does.

    Every rank gets the outputs of all of them for each batch, of which its own have a gradient, and computes the loss
    of the whole batch. So whatever a loss compares with whatever, it is that of one process, and the gradients of all
    ranks add up to its gradient. They are summed by DDP, which is made anew when other weights train than before.

    shares  how the batches of the training are divided, and those of its evaluation
    seen    is shown each bucket of gradients before it is sent
    learnt  is told the samples of this rank in each batch that is learnt from, and how many all ranks have
    """

    def __init__(self, ranks: Ranks, head: Head, shares: tuple[Shares, Shares | None], seed: int) -> None:
        self.ranks, self.head, self.traffic = ranks, head, Traffic()
        self.seen: Seen | None = None
        self.learnt: Callable[[Indices, int], None] | None = None
        self._shares, self._seed = shares, seed
        self._made_of: list[nn.Parameter] = []
        self._module: nn.Module = head

    def begin_as_first(
        self, found: State | None, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
    ) -> State | None:
        """Begin as the first rank does: with its weights and, if it goes on from a checkpoint, with that."""
        for one in self.head.tensors.values():
            self.ranks.spread(one.detach())
        found = self.ranks.told(found)
        if found is not None:
            optimizer.load_state_dict(self.ranks.told(optimizer.state_dict()))
            scaler.load_state_dict(self.ranks.told(scaler.state_dict()))
        return found

    def check_alike(self) -> None:
        """Raise RankError if another rank has come to other weights, which nothing should bring about."""
        hashed = xxhash.xxh3_64()
        for one in self.head.tensors.values():
            hashed.update(one.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        found = [digest for (digest,) in self.ranks.numbers([hashed.intdigest() >> 1])]
        others = [rank for rank, digest in enumerate(found) if digest != found[0]]
        if others:
            raise RankError(
                f"the weights of rank {others[0]} are not those of rank 0, though they began alike; train again, with "
                "ranks of one kind of machine and one version of PyTorch"
            )

    def read(self, members: Indices, *, evaluating: bool = False) -> Indices:
        """The samples of a batch that this rank reads."""
        return self._of(evaluating).read(members)

    def seed(self, epoch: int, batch: int) -> int:
        """What random numbers this rank draws with in a batch: others than the other ranks, and the same after a
        resume."""
        state = np.random.SeedSequence([self._seed, self.ranks.number, epoch, batch]).generate_state(1, np.uint64)
        return int(state[0]) >> 1

    @contextmanager
    def sending(self, *, last: bool) -> Iterator[None]:
        """A forward and a backward pass, after the last one of which in a step the gradients are sent."""
        self._follow()
        keeping = isinstance(self._module, DistributedDataParallel) and not last
        with self._module.no_sync() if keeping else nullcontext(), self.ranks.guarded():  # type: ignore[operator]
            yield

    def outputs(self, batch: Tensors, members: Indices, known: Indices, *, evaluating: bool = False) -> Outputs:
        """The outputs of those samples of a batch that are `known`, in their order; `batch` has what this rank reads of
        its `members`."""
        shares = self._of(evaluating).of(members)
        parts = [own[np.isin(own, known)] for own in shares]
        read, own = self.read(members, evaluating=evaluating), parts[self.ranks.number]
        if len(own) < len(read):
            # A rank without any computes one nevertheless, which does not count: all of them take part in a step.
            batch = subset(batch, places_in(read, own) if len(own) else np.zeros(1, dtype=np.int64))
        if not evaluating and self.learnt is not None:
            self.learnt(own, len(known))
        if evaluating:
            found = self.head(batch)
        else:
            with WholeBatchNorm() if self.head.statistics else nullcontext():
                found = self._module(batch)
        return self._whole(found, [len(one) for one in parts], _order(np.concatenate(parts), known))

    def _of(self, evaluating: bool) -> Shares:
        shares = self._shares[int(evaluating)]
        assert shares is not None
        return shares

    def _whole(self, own: Outputs, counts: list[int], order: Indices) -> Outputs:
        """The outputs of all ranks, `counts` from each, in this order; those of this rank keep their gradient."""
        values, number = own.values.float(), self.ranks.number
        places = torch.from_numpy(order).to(values.device)
        if own.lengths is None:
            each = self._gathered(values, counts)
            each[number] = values[: counts[number]]
            lengths = None
        else:
            longest = max(rows for (rows,) in self.ranks.numbers([values.shape[1]]))
            values = nn.functional.pad(values, (0, 0, 0, longest - values.shape[1]))
            each = self._gathered(values, counts)
            each[number] = values[: counts[number]]
            lengths = torch.cat(self._gathered(own.lengths, counts))[places]
        whole = torch.cat(each)[places]
        if not counts[number] and values.requires_grad:
            whole = whole + 0 * values.sum()  # so that this rank takes part in the backward pass
        return Outputs(whole, lengths)

    def _gathered(self, own: Tensor, counts: list[int]) -> list[Tensor]:
        """The tensors of all ranks, of so many samples each, without a gradient."""
        sent = own.new_zeros((max(1, *counts), *own.shape[1:]))
        sent[: len(own)] = own.detach()
        if torch.is_grad_enabled():  # an evaluation is no part of a step
            self.traffic.outputs += sent.numel() * sent.element_size()
        return [part[:count] for part, count in zip(self.ranks.gather(sent), counts, strict=True)]

    def _follow(self) -> None:
        """Let DDP send the gradients of what trains now. A live one would go on waiting for what has frozen."""
        trained = [one for one in self.head.weights.values() if one.requires_grad]
        if [*map(id, trained)] == [*map(id, self._made_of)]:
            return
        self._made_of, self._module = trained, self.head
        if trained:
            module = _Trained(self.head)
            with self.ranks.guarded():
                self._module = DistributedDataParallel(
                    module, find_unused_parameters=True, gradient_as_bucket_view=True
                )
            self._module.register_comm_hook(None, summing(self.traffic, module.idle, self._show))

    def _show(self, bucket: GradBucket) -> None:
        if self.seen is not None:
            self.seen(bucket)


def _order(members: Indices, known: Indices) -> Indices:
    """Where each of the known samples is among the members, which are the same samples in another order."""
    by_member = np.argsort(members)
    return by_member[np.searchsorted(members, known, sorter=by_member)]

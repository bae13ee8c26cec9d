"""Split a text model into trunk and head at its blocks, whatever its architecture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from recycle_cli.errors import ModelError, UsageError
from recycle_cli.models.cuts import NO_TRUNK, each_cut, resolve_cut
from recycle_cli.models.dependence import behind_and_result, modules_called, parameters_behind
from recycle_cli.models.eval_mode import evaluating
from recycle_cli.models.fields import architecture_proved
from recycle_cli.models.hub import first_line, quiet
from recycle_cli.models.identity import architecture_of, weights_digest
from recycle_cli.models.preprocessor import Inputs
from recycle_cli.models.split_model import SplitModel
from recycle_cli.models.task_layer import SEQUENCES
from recycle_cli.models.text.alone import Seen, same_twice
from recycle_cli.models.text.block_kinds import kinds_of, one_of_each_kind
from recycle_cli.models.text.blocks import Block, find_blocks
from recycle_cli.models.text.engine import Engine, forward_names
from recycle_cli.models.text.lengths import proved
from recycle_cli.models.text.load import Loaded
from recycle_cli.models.text.ownership import Ownership, Used, parameters_in, parameters_of_blocks
from recycle_cli.models.text.selfcheck import CANNOT_RUN, Checked, check_batch, depends_on_task
from recycle_cli.models.text.stem import find_stem
from recycle_cli.models.text.tokens import inputs_of, text_config, text_inputs, word_embeddings
from recycle_cli.models.text.untie import untie_blocks
from recycle_cli.recipe import Recipe


def split(loaded: Loaded, cuts: Sequence[str], *, max_length: int, dtype: str, state_0: bool = False) -> SplitModel:
    """Cut `loaded` at each of `cuts`, and prove that head after trunk is the whole model: on a few tokens, and at every
    length up to `max_length` at which the model may change what it does.

    `dtype` is the stored one. `state_0`: the cut 0 is the state before the first block, whose rows are stored; else it
    is the whole model, of which nothing is. Changes `loaded.model` if its blocks share weights (ALBERT) or it has no
    padding token. Raises UsageError for a cut or length out of range, ModelError for an architecture that cannot be
    cut.
    """
    with quiet():
        engine, batch, first = uncut(loaded, max_length)
        numbers = _numbers(cuts, [str(number) for number in range(len(engine.blocks) + 1)], len(engine.blocks))
        stored = [number for number in numbers if number or state_0]
        named = 0 in _numbers(cuts, (), len(engine.blocks))
        found, there = proved_states(engine, batch, first, stored, named=named)
        engine, numbers = found.engine, [number for number in numbers if number in there or number not in stored]
        owned = {str(one): ownership(found, batch, one) if one in there else _whole(engine, batch) for one in numbers}
        _check_weights(loaded, [owned[str(number)] for number in numbers])
        recipe = _recipe(loaded, found, batch, [owned[str(number)] for number in there], dtype)
    return _assembled(engine, recipe, owned)


def _numbers(cuts: Sequence[str], states: Sequence[str], blocks: int) -> list[int]:
    """The cuts as numbers of blocks, ascending; `every` stands for the states."""
    if not cuts:
        raise UsageError("no cut given: expected at least one, as 50% or a block count")
    return sorted({int(resolve_cut(cut, blocks)) for cut in each_cut(cuts, lambda: states)})


def proved_states(
    engine: Engine, batch: Inputs, first: Seen, cuts: Sequence[int], *, named: bool = False
) -> tuple[Checked, list[int]]:
    """What proving the cuts has found, and those of them that the model has.

    A model may have no state 0: its rows pass beside the first module of its first block, or its blocks read more of
    the embeddings. Raises ModelError if that one was `named`, and for any other cut that does not hold.
    """
    after = [cut for cut in cuts if cut]
    if len(after) == len(cuts) or (not engine.blocks[0].closed and not named):
        return _proved(engine, batch, first, after), after
    if not engine.blocks[0].closed:
        raise ModelError(
            f"{type(engine.model).__name__} cannot be cut at 0: its rows pass beside the first module of its first "
            f"block; name another cut, of 1 to {len(engine.blocks)}"
        )
    try:
        return _proved(engine, batch, first, cuts), list(cuts)
    except ModelError:
        if named or not after:
            raise
        return _proved(engine, batch, first, after), after


def _proved(engine: Engine, batch: Inputs, first: Seen, cuts: Sequence[int]) -> Checked:
    try:
        return proved(engine, batch, first, cuts)
    except ModelError:
        if same_twice(engine, batch):
            raise
        raise ModelError(
            f"{type(engine.model).__name__} cannot be cut: in eval, too, it draws random numbers, and gives other "
            "outputs for the same texts each time; take another model"
        ) from None


def uncut(loaded: Loaded, max_length: int) -> tuple[Engine, Inputs, Seen]:
    """The model with its blocks found, the few tokens that found them, and what the model gave for them."""
    model = loaded.model
    _refuse_decoders_of_encoders(loaded)
    names = forward_names(model)
    if loaded.per_row:
        # GPT-NeoX's classes for tokens declare token types, which its blocks never see and its other classes do not
        # take: as an input they would keep its tasks from sharing a store.
        names &= forward_names(model.base_model)
    inputs = text_inputs(loaded, sorted(names), max_length)
    untie_blocks(model)
    engine = Engine(model, (), inputs, loaded.per_row)
    batch = check_batch(model, inputs)
    before = _modes(model)
    with evaluating(model):
        blocks, first = _found(engine, batch)
        kinds = kinds_of(blocks)
        with one_of_each_kind(blocks, kinds, ()):
            stem = find_stem(model, blocks, engine.options(batch))
    if changed := _modes(model) - before:
        name, value = sorted(changed)[0]
        raise ModelError(_changed_by_a_text(model, name, value))
    return replace(engine, blocks=blocks, kinds=kinds, stem=stem), batch, first


def _whole(engine: Engine, batch: Inputs) -> Ownership:
    """All that the model uses is the head's: the whole model trains."""
    with evaluating(engine.model):
        used = parameters_behind(lambda: engine.full(batch), engine.model)
    return Ownership(
        engine.model, engine.blocks, 0, frozenset(), used | parameters_of_blocks(engine.blocks), whole=True
    )


def ownership(found: Checked, batch: Inputs, cut: int) -> Ownership:
    """Which parameters the trunk and the head of a proved cut use."""
    model, blocks = found.engine.model, found.engine.blocks
    used = found.used.get(cut) or _used(found.engine, batch, cut)
    words = word_embeddings(model)
    trunk = used.trunk | parameters_of_blocks(blocks[:cut]) | parameters_in([words] if words else [])
    head = used.head | parameters_of_blocks(blocks[cut:])
    held = frozenset(id(one) for module in used.called for one in module.parameters(recurse=False))
    return Ownership(model, blocks, cut, trunk | (held - head), head - trunk, _without_parameters(used.called))


def _used(engine: Engine, batch: Inputs, cut: int) -> Used:
    model = engine.model
    with evaluating(model):
        with modules_called(model) as called:
            trunk, rows = behind_and_result(lambda: engine.rows(batch, [cut])[cut], model)
        head = parameters_behind(lambda: engine.head(rows, batch["attention_mask"].sum(1), cut), model)
    return Used(trunk, head, tuple(called))


def _without_parameters(modules: Sequence[nn.Module]) -> tuple[nn.Module, ...]:
    """Dropouts and activations, each once."""
    plain = {id(module): module for module in modules if next(module.parameters(), None) is None}
    return tuple(plain.values())


def _refuse_decoders_of_encoders(loaded: Loaded) -> None:
    if loaded.model.config.is_encoder_decoder and not loaded.encoder_alone:
        pooled = ", or add --head mlp, which takes the encoder alone" if loaded.auto == SEQUENCES else ""
        raise ModelError(
            f"model {loaded.name!r} ({type(loaded.model).__name__}) cannot be cut: its decoder reads the text's tokens "
            f"again, which rows do not hold; use an encoder or a decoder alone{pooled}"
        )


def _found(engine: Engine, batch: Inputs) -> tuple[tuple[Block, ...], Seen]:
    """The blocks, and what the pass gave that found them."""
    outputs: list[Tensor] = []
    try:
        chain = find_blocks(engine.model, engine.options(batch), lambda: outputs.append(engine.full(batch)))
    except CANNOT_RUN as error:
        name = type(engine.model).__name__
        raise ModelError(f"{name} cannot be cut: a few tokens do not pass ({first_line(error)})") from error
    _check_outputs(engine, batch, outputs[0])
    return chain.blocks, Seen(chain.rows, outputs[0])


def _check_outputs(engine: Engine, batch: Inputs, outputs: Tensor) -> None:
    """Raise ModelError for outputs of another shape than the task layer was said to have."""
    samples, tokens = batch["input_ids"].shape
    found = tuple(outputs.shape)
    expected = (samples, tokens) if engine.per_row else (samples,)
    if len(found) != len(expected) + 1 or found[:-1] != expected:
        raise ModelError(
            f"{type(engine.model).__name__} gives outputs {found} for {samples} texts of up to {tokens} tokens; "
            f"expected {', '.join(map(str, expected))} and one number for each label"
        )


def _modes(model: nn.Module) -> set[tuple[str, str]]:
    """Settings that modules hold as text. BigBird changes its kind of attention for good when a text is short."""
    return {
        (f"{type(module).__name__}.{name}", value)
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, str)
    }


def _changed_by_a_text(model: Any, name: str, value: str) -> str:
    """Why a model that a text changes for good cannot be cut, and what would help."""
    said = f"{type(model).__name__} cannot be cut: a short text changes the model itself for all that follow"
    field = name.rpartition(".")[-1]
    if hasattr(text_config(model), field):
        return f'{said}; write "{field}": "{value}" into its config.json, so that all texts are treated alike'
    return f"{said} ({name} to {value}); take another model"


def _check_weights(loaded: Loaded, owned: Sequence[Ownership]) -> None:
    needed = parameters_of_blocks(owned[0].blocks).union(*(one.trunk for one in owned))
    absent = [name for name, one in loaded.model.named_parameters() if id(one) in needed and name in loaded.missing]
    if absent:
        raise ModelError(
            f"model {loaded.name!r}: the checkpoint lacks {len(absent)} weights of its trunk and blocks, "
            f"{absent[0]} first; expected a complete pretrained model"
        )


def _recipe(loaded: Loaded, found: Checked, batch: Inputs, owned: Sequence[Ownership], dtype: str) -> Recipe:
    engine = found.engine
    cuts = [one.cut for one in owned]
    through = bool(cuts) and depends_on_task(engine, batch, cuts)
    return Recipe(
        modality="text",
        architecture=_architecture(loaded.model, _with_special(engine, batch)),
        cuts={str(one.cut): weights_digest(one.trunk_tensors()) for one in owned},
        preprocessor=engine.inputs.digest,
        max_length=engine.inputs.max_length,
        dtype=dtype,
        extra={
            **({"through": type(loaded.model).__name__} if through else {}),
            **({"lengths": "apart"} if engine.by_length else {}),
        },
    )


def _architecture(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields of the model's config that its hidden states depend on."""
    kept = architecture_of(model.config.to_dict())
    base = model.base_model
    if base.config is not model.config:
        return kept
    # A cache of keys and values is of no use to one pass, and not every model has layers for it.
    options = {"use_cache": False} if "use_cache" in forward_names(base) else {}
    return architecture_proved(base, kept, lambda one: one(**inputs, **options)[0])


def _with_special(engine: Engine, batch: Inputs) -> Mapping[str, Tensor]:
    """The batch as the bare model takes it, with special tokens in the middle of its texts: a model may go by them."""
    ids, inputs = batch["input_ids"].clone(), engine.inputs
    special = torch.tensor([number for number in inputs.tokenizer.all_special_ids if number < inputs.token_count])
    if len(special):
        inside = batch["attention_mask"].bool() & (torch.arange(ids.shape[1]) % 2 == 1)
        ids[inside] = special.repeat(ids.numel())[: int(inside.sum())].to(ids.dtype)
    names = forward_names(engine.model.base_model)
    return {name: one for name, one in inputs_of({**batch, "input_ids": ids}, engine.model).items() if name in names}


def _assembled(engine: Engine, recipe: Recipe, owned: Mapping[str, Ownership]) -> SplitModel:
    halves = _Halves(engine, owned)
    return SplitModel(
        recipe=recipe,
        cuts=tuple(owned),
        blocks=len(engine.blocks),
        row_shape=(engine.blocks[0].width,),
        model=engine.model,
        preprocessor=engine.inputs,
        trunk=halves.trunk,
        trunk_to=halves.trunk_to,
        head=lambda rows, lengths: halves.head_from(tuple(owned)[-1])(rows, lengths),
        head_from=halves.head_from,
        full=halves.full,
        head_parameters=lambda cut: halves.at(cut).head_parameters(),
        trunk_parameters=lambda cut: halves.at(cut).trunk_parameters(),
        freeze=halves.freeze,
        between=halves.between,
        head_buffers=lambda cut: halves.at(cut).head_buffers(),
        blocks_after=lambda cut: [block.module for block in engine.blocks[halves.at(cut).cut :]],
        per_row=engine.per_row,
    )


@dataclass(frozen=True)
class _Halves:
    """The engine's passes by names of cuts."""

    engine: Engine
    owned: Mapping[str, Ownership]
    frozen: set[int] = field(default_factory=set)

    def freeze(self, cut: str) -> None:
        self.at(cut).freeze()
        if not self.at(cut).whole:
            self.frozen.add(self.at(cut).cut)

    def full(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The whole model. While it trains, what comes before the last frozen cut runs by itself, in eval: a model may
        drop out rows between its modules, by its own mode (BART does so with its embeddings)."""
        cut = max(self.frozen, default=None)
        if cut is None or not self.engine.model.training:
            return self.engine.full(batch)
        return self.engine.head(self.engine.trunk(batch, [cut])[cut], batch["attention_mask"].sum(1), cut)

    def at(self, cut: str) -> Ownership:
        if cut not in self.owned:
            raise UsageError(f"cut {cut!r}: the model was split at {', '.join(self.owned)}")
        return self.owned[cut]

    def trunk(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        cuts = [one.cut for one in self.owned.values() if not one.whole]
        if not cuts:
            raise UsageError(NO_TRUNK)
        return {str(cut): rows for cut, rows in self.engine.trunk(batch, cuts).items()}

    def trunk_to(self, cut: str) -> Callable[[Mapping[str, Tensor]], Tensor]:
        number = self.at(cut).cut
        if self.at(cut).whole:
            raise UsageError(NO_TRUNK)
        return lambda batch: self.engine.trunk(batch, [number])[number]

    def head_from(self, cut: str) -> Callable[[Tensor, Tensor], Tensor]:
        number = self.at(cut).cut
        if self.at(cut).whole:
            raise UsageError("cut 0 has no head of its own: the whole model trains on the texts")
        return lambda rows, lengths: self.engine.head(rows, lengths, number)

    def between(self, cut: str, later: str) -> Callable[[Tensor, Tensor], Tensor]:
        first, last = self.at(cut).cut, self.at(later).cut
        if self.at(cut).whole:
            raise UsageError("cut 0 has no rows: the whole model runs on the texts")
        if first >= last:
            raise UsageError(f"rows at cut {cut} cannot be taken to cut {later}: expected a cut after {cut}")
        return lambda rows, lengths: self.engine.between(rows, lengths, first, last)

"""A settings field is an option as well: what it carries, what a result depends on, how values are read."""

from dataclasses import asdict, replace

import pytest

from recycle_cli.settings import (
    TASKS,
    BenchSettings,
    ClassificationSettings,
    CorpusSettings,
    Job,
    LayersSettings,
    ModelSettings,
    PlanSettings,
    PrecomputeSettings,
    PredictSettings,
    SimilaritySettings,
    TrainingSettings,
    decisive,
)
from recycle_cli.settings.option import PANELS, option_of, options_of
from recycle_cli.settings.reading import names, numbers, sides, size

ALL = [
    CorpusSettings,
    ModelSettings,
    PrecomputeSettings,
    Job,
    TrainingSettings,
    PredictSettings,
    BenchSettings,
    PlanSettings,
    LayersSettings,
    *dict.fromkeys(TASKS.values()),
]
MARKED = [
    pytest.param(option_of(one), id=f"{kind.__name__}-{name}") for kind in ALL for name, one in options_of(kind).items()
]


@pytest.mark.parametrize("option", MARKED)
def test_the_help_of_an_option_is_a_sentence_in_a_panel(option):
    assert option.help[0].isupper()
    assert option.help.endswith(".")
    assert option.panel in PANELS


def test_options_of_nested_settings_are_found_by_their_own_names():
    assert list(options_of(SimilaritySettings))[-2:] == ["embedding", "embedding-size"]
    assert "crop" in options_of(ModelSettings)
    assert "transform" not in options_of(ModelSettings)


def test_settings_are_made_by_position_as_ever():
    assert TrainingSettings(1, 2, 0.5) == TrainingSettings(epochs=1, batch_size=2, learning_rate=0.5)
    with pytest.raises(TypeError, match="output"):
        Job(CorpusSettings(()))


def test_a_result_depends_on_all_fields_but_those_that_a_resume_may_change():
    settings = TrainingSettings(task=ClassificationSettings(multi_label=True))
    free = {"save_steps", "parity_check", "memory", "in_memory"}
    expected = {name: value for name, value in asdict(settings).items() if name not in free}
    del expected["task"]["layers"]["save"]
    for name in ("max_disk", "keep_scratch", "plot"):
        del expected["freezing"][name]
    assert decisive(settings) == expected


@pytest.mark.parametrize("change", [{"save_steps": 3}, {"parity_check": False}, {"memory": 5}, {"in_memory": True}])
def test_what_a_resume_may_change_is_not_decisive(change):
    assert decisive(replace(TrainingSettings(), **change)) == decisive(TrainingSettings())


def test_values_are_read_as_people_write_them():
    assert numbers("0.5,0.4,1") == (0.5, 0.4, 1.0)
    assert sides("256,192") == (256, 192)
    assert names("query, value,") == ("query", "value")
    with pytest.raises(ValueError, match="'a': expected numbers"):
        sides("a")


@pytest.mark.parametrize(
    ("text", "count"), [("4GiB", 4 << 30), ("500MB", 500_000_000), (" 1.5 kib ", 1536), ("7", 7), ("1B", 1)]
)
def test_sizes_are_read_as_people_write_them(text, count):
    assert size(text) == count


@pytest.mark.parametrize("text", ["0", "0.9", "0.0001K", "-1", "1e9", "4 EiB", "", "9" * 400])
def test_a_size_of_less_than_a_byte_or_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match="expected a size of at least one byte"):
        size(text)

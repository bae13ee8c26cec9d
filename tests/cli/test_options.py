"""Commands are made from settings: what is parsed comes back as settings, and an option of another task is refused."""

import pytest
import typer

from recycle_cli.cli.main import app
from recycle_cli.cli.options import filled
from recycle_cli.errors import UsageError
from recycle_cli.reports import bar
from recycle_cli.settings import (
    MINILM,
    ClassificationSettings,
    EmbeddingSettings,
    ImageSettings,
    ModelSettings,
    PredictSettings,
    SimilaritySettings,
    TrainingSettings,
)
from recycle_cli.settings.option import options_of


@pytest.fixture
def asked(asked):
    """The same for one corpus and one RUN."""
    return lambda *arguments: asked("data.csv", "--output", "run", *arguments)


def test_unset_options_are_the_defaults_of_the_settings(asked):
    job, model, training = asked()
    assert (job.data.source, job.output, job.store, job.model_named) == (("data.csv",), "run", None, False)
    assert model == ModelSettings(MINILM)
    assert training.task == ClassificationSettings()


def test_options_of_nested_settings_arrive(asked):
    options = ("--crop", "32,24", "--mean", "0.1,0.2,0.3", "--adapter", "lora", "--adapter-layers", "query, value")
    _, model, training = asked(*options, "--memory", "2GiB", "--views", 2)
    assert model.images == ImageSettings(crop=(32, 24), mean=(0.1, 0.2, 0.3))
    assert (training.adapter.kind, training.adapter.layers) == ("lora", ("query", "value"))
    assert (training.memory, training.views.views) == (2 << 30, 2)


def test_a_task_gets_its_own_options(asked):
    options = ("--task", "similarity", "--margin", 0.2, "--embedding", "linear", "--embedding-size", 7)
    _, _, training = asked(*options)
    assert training.task == SimilaritySettings(margin=0.2, embedding=EmbeddingSettings("linear", 7))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--margin", 0.2, "--temperature", 1),
            "--margin, --temperature: only --task similarity takes it; leave it out of --task text-classification",
        ),
        (
            ("--task", "similarity", "--multi-label"),
            "--multi-label: only --task text-classification or image-classification takes it; leave it out of --task "
            "similarity",
        ),
    ],
)
def test_an_option_of_another_task_is_refused(asked, arguments, message):
    with pytest.raises(UsageError) as error:
        asked(*arguments)
    assert str(error.value) == message


def test_an_option_of_another_task_may_have_its_default(asked):
    _, _, training = asked("--margin", 0.5)
    assert training.task == ClassificationSettings()


def test_heads_get_what_the_command_line_says_of_all(asked, tmp_path):
    file = tmp_path / "heads.toml"
    file.write_text('multi-label = true\n[[head]]\nname = "a"\nlabel-column = "x"\nclass-weights = "balanced"\n')
    _, _, (head,) = asked("--heads", file, "--views", 3)
    assert (head.name, head.label_column, head.training.views.views) == ("a", "x", 3)
    assert head.training.task == ClassificationSettings(multi_label=True, class_weights="balanced")


def test_quiet_leaves_progress_out(asked, capsys):
    for option, lines in (("--quiet", 0), ("--resume", 1)):
        asked(option)
        with bar("finetune", every=0) as progress:
            progress.update(1)
        assert capsys.readouterr().err.count("\n") == lines


def test_given_fields_come_before_what_was_asked():
    assert filled(ModelSettings, {"model": "asked", "crop": (3,)}, name="given") == ModelSettings(
        "given", images=ImageSettings(crop=(3,))
    )


FLOATS = [
    name
    for kind in (TrainingSettings, ClassificationSettings, SimilaritySettings, PredictSettings)
    for name, one in options_of(kind).items()
    if one.type is float
]


@pytest.mark.parametrize("value", ["nan", "-nan", "NaN", "inf"])
@pytest.mark.parametrize("name", FLOATS)
def test_no_number_is_no_value_of_an_option(name, value):
    command = "predict data.csv run" if name == "threshold" else "finetune data.csv --output run"
    with pytest.raises((UsageError, typer.BadParameter)) as caught:
        app([*command.split(), f"--{name}", value], standalone_mode=False)
    assert name in str(caught.value) or "range" in str(caught.value)


@pytest.mark.parametrize("option", ["--mean=nan,0,0", "--std=1,inf,1", "--resize=nan", "--crop=inf", "--resize=22.5"])
def test_no_number_is_no_color_and_no_side(option):
    with pytest.raises(typer.BadParameter, match=r"expected (numbers with commas|whole numbers)"):
        app(["finetune", "data.csv", "--output", "run", option], standalone_mode=False)

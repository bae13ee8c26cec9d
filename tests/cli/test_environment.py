"""Variables of the environment: what is wrong with one is said by its name, and a misspelt one is told."""

import pytest


@pytest.mark.parametrize(
    ("command", "variable", "value", "said"),
    [
        (
            "finetune x.csv --output r",
            "RECYCLE_EPOCHS",
            "abc",
            "RECYCLE_EPOCHS: 'abc' is not a whole number of at least 1",
        ),
        (
            "finetune x.csv --output r",
            "RECYCLE_WARMUP_SHARE",
            "2",
            "RECYCLE_WARMUP_SHARE: 2.0 is not a number from 0 to 1",
        ),
        ("store info s", "RECYCLE_QUIET", "perhaps", "RECYCLE_QUIET: 'perhaps' is not true or false"),
        ("precompute x.csv s", "RECYCLE_DTYPE", "half", "RECYCLE_DTYPE: 'half' is not one of"),
    ],
)
def test_a_wrong_value_is_told_by_where_it_was_given(recycle, command, variable, value, said):
    done = recycle(*command.split(), env={variable: value})
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith(f"recycle: {said}")
    option = "--" + variable.removeprefix("RECYCLE_").lower().replace("_", "-")
    if "QUIET" not in variable:
        done = recycle(*command.split(), option, value)
        assert done.err.startswith(f"recycle: {said.replace(variable, option)}")


def test_a_misspelt_variable_is_told_and_the_others_are_not(recycle):
    env = {
        "RECYCLE_EPOHCS": "3",  # of another command
        "RECYCLE_LEARNINGRATE": "3",
        "RECYCLE_CACHE": "/nowhere",
        "RECYCLE_CACHE_BYTES": "10",
        "RECYCLE_OUTPUT": "r",
        "RECYCLE_SOMETHING_OF_OTHERS": "x",
    }
    done = recycle("store", "info", "none", env=env)
    assert done.code == 4
    assert done.err.splitlines()[:-1] == [
        "RECYCLE_EPOHCS is set but is no option, so it has no effect; did you mean RECYCLE_EPOCHS?",
        "RECYCLE_LEARNINGRATE is set but is no option, so it has no effect; did you mean RECYCLE_LEARNING_RATE?",
    ]

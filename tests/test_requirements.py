"""What is required of figures is read strictly, refused if it cannot be measured, and judged by the figure's name."""

import pytest

from recycle_cli.errors import BarError, UsageError
from recycle_cli.requirements import check_requirements, parse_requirement

KNOWN = ("finetune.speedup_vs_full", "a.b", "plain-1.macro_f1", "finetune.at_100%")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a.b>=1.8", ("a.b", ">=", 1.8)),
        (" a.b < 2e3 ", ("a.b", "<", 2000.0)),
        ("plain-1.macro_f1>-0.5", ("plain-1.macro_f1", ">", -0.5)),
        ("finetune.at_100%<=1", ("finetune.at_100%", "<=", 1.0)),
    ],
)
def test_what_is_required_is_read(text, read):
    found = parse_requirement(text, KNOWN)
    assert (found.figure, found.relation, found.value) == read


@pytest.mark.parametrize("text", ["", "a.b", ">=1", "a.b=1", "a.b==1", "a.b>=", "a.b>=x", "a.b>=1; 2", "1>=a.b"])
def test_anything_else_is_refused(text):
    with pytest.raises(UsageError, match="expected a figure"):
        parse_requirement(text, KNOWN)


def test_an_unknown_figure_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"is not measured without --eval; did you mean finetune\.speedup_vs_full"):
        parse_requirement("finetune.speedup_vs_ful>=1", KNOWN, "without --eval")


def test_what_is_required_holds_or_figure_and_value_are_named():
    figures = {"a": 1.5, "b": None}
    check_requirements([parse_requirement("a>=1.5"), parse_requirement("a<2")], figures)
    with pytest.raises(BarError, match=r"^a is 1\.5; >= 1\.8 was required$"):
        check_requirements([parse_requirement("a>=1.8")], figures)
    with pytest.raises(BarError, match=r"^a is 1\.5; < 1 was required; b could not be measured \(needs accelerate\)"):
        check_requirements([parse_requirement("a<1"), parse_requirement("b>=0")], figures, {"b": "needs accelerate"})


def test_a_figure_that_misses_by_little_is_told_with_enough_digits():
    with pytest.raises(BarError, match=r"a is 0\.79999; >= 0\.8 was required"):
        check_requirements([parse_requirement("a>=0.8")], {"a": 0.79999})
    with pytest.raises(BarError, match="a is nan; > 0 was required"):
        check_requirements([parse_requirement("a>0")], {"a": float("nan")})

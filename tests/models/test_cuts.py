"""Names of cuts."""

import pytest

from recycle_cli.errors import UsageError
from recycle_cli.models import each_cut, resolve_cut


@pytest.mark.parametrize(
    ("cut", "blocks", "name"),
    [
        ("3", 6, "3"),
        ("03", 6, "3"),
        ("0", 6, "0"),
        ("6", 6, "6"),
        ("50%", 6, "3"),
        (" 50% ", 12, "6"),
        ("0%", 6, "0"),
        ("100%", 6, "6"),
        ("1%", 6, "1"),
        ("25%", 6, "2"),
        ("33.3%", 12, "4"),
        ("50%", 5, "3"),
        ("0" * 5000 + "3", 6, "3"),
        ("0" * 5000, 6, "0"),
        ("50." + "0" * 5000 + "%", 6, "3"),
    ],
)
def test_canonical_name(cut, blocks, name):
    assert resolve_cut(cut, blocks) == name


@pytest.mark.parametrize("cut", ["7", "-1", "101%", "half", "", "3.5", "0.5", "%", "layer3"])
def test_out_of_range_lists_what_is_valid(cut):
    with pytest.raises(UsageError, match="a number of blocks from 0 to 6, or a share of them from 0% to 100%"):
        resolve_cut(cut, 6)


@pytest.mark.parametrize("cut", ["9" * 5000, "9" * 5000 + "%", "\N{ARABIC-INDIC DIGIT THREE}" * 5000, "x" * 5000])
def test_a_cut_of_thousands_of_characters_is_one_short_line(cut):
    with pytest.raises(UsageError, match=r"^--cut '.{40}\.\.\.': expected a number of blocks") as caught:
        resolve_cut(cut, 6)
    assert len(str(caught.value)) < 200


def test_pooled_is_refused_with_the_reason():
    with pytest.raises(UsageError, match=r"pooled.*use 100%"):
        resolve_cut("pooled", 6)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (["every"], "0123456"),
        (["every:1"], "0123456"),
        (["every:2"], "0246"),
        (["every:4"], "046"),
        ([" Every:99 "], "06"),
        (["0,3", "6"], "036"),
        (["3", "every:3", "3"], "306"),
    ],
)
def test_words_that_stand_for_several_cuts(asked, names):
    assert "".join(each_cut(asked, lambda: list("0123456"))) == names


@pytest.mark.parametrize("cut", ["every:0", "every:00"])
def test_every_none_is_refused(cut):
    with pytest.raises(UsageError, match="expected a number from 1 on"):
        each_cut([cut], lambda: list("0123456"))


@pytest.mark.parametrize("cut", ["every:", "every:-1", "every:x", "every2", ",", "0,,3"])
def test_what_only_looks_like_several_is_no_cut(cut):
    with pytest.raises(UsageError, match="expected a number of blocks from 0 to 6"):
        [resolve_cut(one, 6) for one in each_cut([cut], lambda: list("0123456"))]

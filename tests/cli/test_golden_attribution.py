"""What causes, a whole card and a ranking with p look like on a terminal, byte for byte, at two widths.

After a change that is meant: SAESCOPE_REWRITE_GOLDEN=1 make test, then read the diff.
"""

import msgspec
import pytest
import samples
from test_golden import RECORDS, compare

from engine.cli.printing import Printer, attribution, card, features
from engine.records import Replayed
from engine.records.words.rich_text import Terminal

RANKING = msgspec.structs.replace(
    RECORDS["ranking"][1],
    features=tuple(
        msgspec.structs.replace(row, p=p, loo=loo)
        for row, p, loo in zip(RECORDS["ranking"][1].features, (0.0123, None), (3, 12345), strict=True)
    ),
    permutations=2000,
)

PRINTED = {
    "attribution": (attribution.attribution, samples.ATTRIBUTION, ()),
    "minimal_set": (attribution.minimal_set, samples.MINIMAL_SET, ()),
    "card": (card.described, samples.CARD, ("gpt2-small/8-res-jb",)),
    "ranking_with_p": (features.ranking, RANKING, ()),
}


def printed(show, record, more, width, capsys):
    printer = Printer(json=False)
    printer.out = Terminal(width=width)
    printer.result(show, record, *more)
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", PRINTED)
def test_output(name, width, capsys):
    text = printed(*PRINTED[name], width, capsys)
    compare(f"{name}_{width}", text)
    assert all(len(line) <= width for line in text.splitlines() if "--compare" not in line)


@pytest.mark.parametrize("by", ["seed", "diff", "g", "coverage_negative", "density"])
def test_the_column_that_a_ranking_is_sorted_by_stays_on_a_narrow_terminal(by, capsys):
    lines = printed(features.ranking, msgspec.structs.replace(RANKING, by=by), (), 52, capsys).splitlines()
    assert by.replace("coverage_negative", "cover +/−") in lines[0]
    assert any(line.startswith("no room for: ") for line in lines)


def test_replayed_causes(capsys):
    printer = Printer(json=False)
    printer.out = Terminal(width=80)
    found = [
        (samples.ATTRIBUTION, Replayed(True, None, 1.5e-7)),
        (samples.MINIMAL_SET, Replayed(False, 1, 0.25)),
    ]
    printer.replayed(found)
    compare("replayed_causes", capsys.readouterr().out)

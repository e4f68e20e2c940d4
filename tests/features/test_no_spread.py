"""Features that separate prompts that begin alike without any spread: g is infinite wherever it is shown."""

import csv
import io
import json
import math

import msgspec
import numpy as np
import plain
import pytest
from tiny import BOS

from engine.cli.run import main
from engine.files import session
from engine.files.export import formats as export
from engine.records import Load, Prompt, PromptSet, Rank, Ranking, Replay, Replayed
from engine.serving.client import ask
from tui.panes.leaderboard import COLUMNS

SET = PromptSet(
    "alike",
    tuple(Prompt(f"The nurse fed the lab {end}") for end in "abcde"),
    tuple(Prompt(f"A cab was late, he said {end}") for end in "abcde"),
)


@pytest.fixture(scope="module")
def ranking(client):
    return ask(client, Rank(SET, by="g", top=40), Ranking)


@pytest.fixture(scope="module")
def by_hand(model, weights, pair):
    """g of every feature, in float64."""
    sets = []
    for prompts in (SET.positive, SET.negative):
        rows = []
        for prompt in prompts:
            ids = [BOS, *model.tokens.tokenizer(prompt.text).input_ids]
            h_TD = plain.hidden(model.module, ids, layer=1)
            keep = plain.rank_mask(ids, h_TD, pair.site.reference.sink_norm)
            rows.append(plain.encode(h_TD[keep], weights).max(0))
        sets.append(np.array(rows))
    positive, negative = sets
    diff = positive.mean(0) - negative.mean(0)
    sd = np.sqrt((positive.var(0, ddof=1) + negative.var(0, ddof=1)) / 2)
    none = np.maximum(np.ptp(positive, 0), np.ptp(negative, 0)) < 1e-5
    g = diff / np.where(none, 1, sd) * (1 - 3 / 31)
    return np.where(none, np.where(np.abs(diff) > 1e-5, np.copysign(np.inf, diff), 0), g)


def g_of(row):
    return math.copysign(math.inf, row.diff) if row.g_infinite else row.g


def test_g_is_that_of_float64_by_hand_and_infinite_ones_come_first(ranking, by_hand):
    for row in ranking.features:
        assert g_of(row) == pytest.approx(by_hand[row.feature], rel=1e-3, abs=1e-4)
    found = [g_of(row) for row in ranking.features]
    assert found == sorted(found, reverse=True)
    assert found[0] == math.inf == found[2] and found[-1] == -math.inf
    assert all(row.auroc == 1 for row in ranking.features if g_of(row) == math.inf)
    assert all(row.t != 0 for row in ranking.features if row.g_infinite)


def test_it_is_shown_as_infinite_everywhere_and_survives_a_session(ranking, client, load, tmp_path):
    path = tmp_path / "kept.saescope.json"
    session.write(session.add(session.new(Load()), ranking), path)
    kept = session.read(path)
    assert kept.of(Ranking) == (ranking,)
    assert ask(client, Replay(kept.of(Ranking)[0]), Replayed).same
    rows = list(csv.DictReader(io.StringIO(export.to_csv(kept, "features"))))
    assert (rows[0]["g"], rows[-1]["g"]) == ("∞", "-∞")
    lines = [line for line in export.to_markdown(kept).splitlines() if line.startswith("| ")]
    place = lines[0].split(" | ").index("g")
    assert [lines[n].split(" | ")[place] for n in (2, -1)] == ["∞", "-∞"]
    first = json.loads(export.to_jsonl(kept).splitlines()[1])["features"][0]
    assert (first["g"], first["g_infinite"]) == (None, True)
    (g,) = (column for column in COLUMNS if column.heading == "g")
    assert [g.cell(row, None) for row in (ranking.features[0], ranking.features[-1])] == ["∞", "-∞"]


def test_the_command_line_prints_it_first(load, tmp_path, capsys):
    lines = ['name = "alike"']
    for side, prompts in (("positive", SET.positive), ("negative", SET.negative)):
        lines += [f'[[{side}]]\ntext = "{prompt.text}"' for prompt in prompts]
    (tmp_path / "alike.toml").write_text("\n".join(lines), "utf-8")
    pair = ["--model", load.model, "--sae", load.sae, "--reference", load.reference, "--dtype", "float32"]
    assert main(["rank", "--by", "g", "--prompts", str(tmp_path / "alike.toml"), "--device", "cpu", *pair]) == 0
    heading, row, *_ = capsys.readouterr().out.splitlines()
    assert row[heading.index(" g ") + 1] == "∞" and row[: heading.index(" g ")].strip()


def test_a_session_of_before_still_reads(ranking):
    fields = msgspec.to_builtins(ranking)
    for row in fields["features"]:
        del row["g_infinite"]
    assert not any(row.g_infinite for row in msgspec.convert(fields, Ranking).features)

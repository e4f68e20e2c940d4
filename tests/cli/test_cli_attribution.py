"""saescope attribute end to end on the tiny model, and what feature, replay and export make of measures."""

import json

import msgspec
import pytest
import samples
from test_cli import parsed
from tiny import D_SAE, SENTENCES

from engine.cli.attribute import takers
from engine.cli.run import main, parser
from engine.files import session
from engine.records import Attribution, FindMinimalSet, MinimalSet
from engine.records.attribution import candidates
from engine.records.errors import SaescopeError
from engine.serving.verbs import VERBS

SET = "\n".join(
    [
        'name = "tiny"',
        *(f'[[positive]]\ntext = "{s}"' for s in SENTENCES[:4]),
        *(f'[[negative]]\ntext = "{s}"' for s in SENTENCES[4:]),
        *(
            f'[[probe]]\ntext = "{s}"\nformat = "raw"\ncovariate = {x}\nanswers = {{ she = [" she"], he = [" he"] }}'
            for s, x in zip(SENTENCES[:3], (2.0, -1.0, 0.5), strict=True)
        ),
        '[[probe]]\ntext = "My sister"\nformat = "raw"\nright = "she"\nanswers = { she = [" she"], he = [" he"] }',
    ]
)

FEW = ("--top", 8, "--exact", 3, "--controls", 4)


@pytest.fixture
def cli(files, tmp_path, capsys):
    """Runs a verb on the tiny pair and prompt set; returns (exit code, standard output, standard error)."""
    (tmp_path / "tiny.toml").write_text(SET, "utf-8")
    pair = ["--model", files.model, "--sae", files.sae, "--reference", files.reference, "--device", "cpu"]
    given = [*pair, "--dtype", "float32", "--prompts", str(tmp_path / "tiny.toml")]

    def run(verb, *argv, loads=True):
        code = main([verb, *(given if loads else []), *map(str, argv)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_attribute_prints_the_documented_keys(cli):
    found = parsed(cli("attribute", "--json", *FEW))
    rows = [row for row in found["features"] if not row["control"]]
    assert set(rows[0]) >= {"feature", "estimate", "exact"}
    assert [row["exact"] is None for row in rows[:4]] == [False, False, False, True]
    assert found["slope"] is True
    assert (found["request"]["measure"]["toward"], found["request"]["measure"]["against"]) == ("she", "he")
    assert len(found["probes"]) == 3  # the question of fact is none of them
    assert "minimal_set" not in found


def test_attribute_prints_the_measure_then_the_features_then_what_they_let_one_say(cli):
    code, out, err = cli("attribute", *FEW)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "log-odds of 'she' against 'he': their slope on the covariate of 3 probes"
    assert lines.index(next(x for x in lines if x.startswith("baseline "))) < lines.index(
        next(x for x in lines if x.startswith("feature"))
    )
    assert "influences" not in out  # four features are too few to compare with
    assert "blocks.1.hook_resid_pre" in err


def test_answers_of_ones_own_are_said_to_be_taken_literally(cli):
    code, out, err = cli("attribute", "--toward", " they", "--against", "he", *FEW)
    assert code == 0
    assert out.startswith("log-odds of ' they' against 'he'")
    assert "' they' is taken as a string of its own (the probes track she, he)" in err
    assert "'he' is taken" not in err


def test_contrast_first_leaves_only_what_tells_the_sets_apart(cli):
    ranked = {row["feature"] for row in parsed(cli("rank", "--json", "--top", 200))["features"]}
    found = parsed(cli("attribute", "--json", "--candidates", "contrast", *FEW))
    assert set(found["request"]["candidates"]) == ranked
    assert {row["feature"] for row in found["features"] if not row["control"]} <= ranked


def test_a_set_comes_below_its_attribution_and_within_its_json(cli):
    share = ("--share", 0.3, "--most", 5, *FEW, "--neutral-tokens", 128, "--penalty", 0.25)
    found = parsed(cli("attribute", "--json", *share))
    smallest = found["minimal_set"]
    request = smallest["request"]
    assert (request["share"], request["most"], request["penalty"], request["neutral_tokens"]) == (0.3, 5, 0.25, 128)
    assert [probe["text"] for probe in request["facts"]] == ["My sister"]
    rows = {row["feature"]: row for row in found["features"]}
    effects = [rows[f]["exact"] if rows[f]["exact"] is not None else rows[f]["estimate"] for f in request["candidates"]]
    assert all(-effect / found["baseline"] > 0 for effect in effects)
    code, out, _ = cli("attribute", *share)
    assert code == 0
    assert out.index("share  ") < out.index("share with")
    assert "chosen on these very probes" in out


def test_a_search_that_fails_still_prints_and_keeps_the_attribution(cli, tmp_path, monkeypatch):
    def fail(explorer, request):
        raise SaescopeError("No luck.", "Try again.")
        yield

    monkeypatch.setitem(VERBS, FindMinimalSet, fail)
    path = tmp_path / "run.saescope.json"
    code, out, err = cli("attribute", "--json", "--share", 0.5, *FEW, "--session", path)
    assert code == 1
    assert "No luck" in err
    assert json.loads(out)["minimal_set"] is None
    assert len(session.read(path).of(Attribution)) == 1
    assert session.read(path).of(MinimalSet) == ()


@pytest.fixture
def recorded(cli, tmp_path):
    """A session file with an attribution and a set, no more."""
    path = tmp_path / "run.saescope.json"
    assert cli("attribute", *FEW, "--share", 0.3, "--session", path)[0] == 0
    return path


def test_both_are_recorded_with_their_prompt_set(recorded):
    found = session.read(recorded)
    assert (len(found.of(Attribution)), len(found.of(MinimalSet))) == (1, 1)
    assert [s.name for s in found.prompt_sets] == ["tiny"]
    assert found.of(MinimalSet)[0].request.measure == found.of(Attribution)[0].request.measure


def test_a_session_of_causes_alone_replays(cli, recorded):
    code, out, _ = cli("replay", recorded, loads=False)
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()] == ["same", "same"]
    assert out.splitlines()[0].endswith("same features in the same order, largest effect change 0")
    assert out.splitlines()[1].endswith("same members in the same order, largest share change 0")
    found = parsed(cli("replay", recorded, "--json", loads=False))
    assert [(r["recorded"], r["same"]) for r in found["results"]] == [("Attribution", True), ("MinimalSet", True)]


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (("--format", "md"), "## What she against he depends on"),
        (("--format", "jsonl"), '"type":"MinimalSet"'),
        (("--format", "csv", "--table", "attributions"), "attribution,toward,against,unit,baseline,rank,feature"),
        (("--format", "csv", "--table", "sets"), "set,toward,against,unit,baseline,ablated,share"),
    ],
)
def test_export_writes_them_in_every_format(cli, recorded, argv, part):
    code, out, _ = cli("export", recorded, *argv, loads=False)
    assert code == 0
    assert part in out


@pytest.mark.parametrize("given", [(), ("--toward", "she"), ("--toward", " they", "--against", " it")])
def test_a_features_effect_is_shown_where_a_measure_is_asked_for(cli, given):
    found = parsed(cli("feature", 3, "--json", *given))
    assert (found["effect"] is None) == (not given)
    code, out, _ = cli("feature", 3, *given)
    assert code == 0
    assert ("ablating the feature: " in out) == bool(given)


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (("attribute", "--most", 3), "--most is of no use without --share"),
        (("attribute", "--penalty", 0), "--penalty is of no use without --share"),
        (("attribute", "--neutral-tokens", 0), "--neutral-tokens is of no use without --share"),
        (("attribute", "--prompts", "founding_5v2", "--toward", " a", "--against", " a"), "against itself"),
        (("attribute", "--toward", "she", "--against", "she"), "against itself"),
        (("attribute", "--toward", " they"), "--against is missing"),
        (("feature", 3, "--toward", " they"), "--against is missing"),
        (("feature", D_SAE, "--toward", "she"), f"no feature {D_SAE}"),
    ],
)
def test_bad_usage_exits_with_2_and_prints_nothing(cli, argv, part):
    code, out, err = cli(*argv)
    assert (code, out) == (2, "")
    assert part in err


def test_contrast_needs_both_sets(cli, tmp_path):
    bare = SET[: SET.index("[[positive]]")] + SET[SET.index("[[probe]]") :]
    (tmp_path / "bare.toml").write_text(bare, "utf-8")
    code, _, err = cli("attribute", "--prompts", tmp_path / "bare.toml", "--candidates", "contrast")
    assert code == 2
    assert "lacks positive or negative prompts" in err


@pytest.mark.parametrize(
    "argv",
    [
        ("--share", "0"),
        ("--share", "1.5"),
        ("--share", "nan"),
        ("--share", "half"),
        ("--penalty", "-1"),
        ("--penalty", "inf"),
        ("--exact", "-1"),
        ("--top", "0"),
        ("--most", "0"),
        ("--controls", "x"),
        ("--candidates", "some"),
    ],
)
def test_arguments_that_do_not_parse_exit_with_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["attribute", *argv])
    assert caught.value.code == 2
    assert argv[0] in capsys.readouterr().err


def test_help_says_that_a_space_matters_and_names_the_defaults(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["attribute", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert 'A space in front matters: " she" is a word' in text
    assert "with the largest estimates (32)" in text


def test_candidates_of_a_set_are_what_takes_away_exact_effects_first():
    row = samples.ATTRIBUTION.features[0]
    kinds = [(1, 0.3, None), (2, -0.3, None), (3, -0.1, -0.01), (4, -0.1, 0.2), (5, -0.4, None), (6, -0.1, -0.05)]
    rows = [msgspec.structs.replace(row, feature=f, estimate=e, exact=x) for f, e, x in kinds]
    control = msgspec.structs.replace(row, feature=7, exact=-1.0, control=True)
    drawn_too = msgspec.structs.replace(row, feature=8, exact=-0.03, control=True)  # listed, and drawn for comparison
    found = msgspec.structs.replace(samples.ATTRIBUTION, features=(drawn_too, *rows, control))
    assert takers(found) == (6, 8, 3, 5, 2)
    assert candidates(found, estimated=False) == (6, 8, 3)
    assert takers(msgspec.structs.replace(found, baseline=-0.25)) == (4, 1)
    with pytest.raises(SaescopeError, match="No feature listed takes any") as caught:
        takers(msgspec.structs.replace(found, baseline=0.0))
    assert caught.value.exit_code == 1

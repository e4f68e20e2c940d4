"""The command line end to end on the tiny model: JSON keys, exit codes, messages."""

import io
import json
import os
import subprocess
import sys

import pytest
from tiny import D_SAE, SENTENCES, write_sae

from engine.cli.command import edits, variants
from engine.cli.printing.printer import write_json
from engine.cli.run import main, parser
from engine.files import session
from engine.loading.demo import feature_lists
from engine.records import Edit, Generated, ProbeTable, Ranking
from engine.records.errors import SaescopeError

SET = "\n".join(
    [
        'name = "tiny"',
        *(f'[[positive]]\ntext = "{s}"' for s in SENTENCES[:4]),
        *(f'[[negative]]\ntext = "{s}"' for s in SENTENCES[4:]),
        '[[probe]]\ntext = "Who?"\nprefill = "It is"\nanswers = { she = [" she", " her"], he = [" he"] }',
        '[[probe]]\ntext = "What now"\nformat = "raw"',
    ]
)

ROW = {"feature", "score", "diff", "auroc", "t", "g", "coverage_positive", "coverage_negative", "density", "loo"}

ARM = {"text", "token_ids", "logprobs"}


@pytest.fixture
def cli(files, tmp_path, capsys):
    """Runs a verb on the tiny pair; returns (exit code, standard output, standard error)."""
    (tmp_path / "tiny.toml").write_text(SET, "utf-8")
    pair = ["--model", files.model, "--sae", files.sae, "--reference", files.reference, "--device", "cpu"]

    def run(verb, *argv, loads=True):
        first = [*pair, "--dtype", "float32"] if loads else []
        if verb in ("rank", "show", "feature", "probes"):
            first += ["--prompts", str(tmp_path / "tiny.toml")]
        code = main([verb, *first, *map(str, argv)])  # an option given twice: the later one counts
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def parsed(result):
    code, out, _ = result
    assert code == 0
    assert out.count("\n") == 1
    return json.loads(out)


def test_rank_prints_the_documented_keys(cli):
    found = parsed(cli("rank", "--json", "--top", 5, "--by", "auroc", "--pool", "mean"))
    assert len(found["features"]) == 5
    assert set(found["features"][0]) >= ROW
    assert (found["by"], found["pool"], found["labelings"]) == ("auroc", "mean", 15)
    assert parsed(cli("rank", "--json", "--no-density-weight", "--include-masked"))["include_masked"] is True


def test_generate_prints_the_documented_keys(cli):
    found = parsed(cli("generate", "The nurse", "--json", "--ablate", 3, "--scale", "4=0.5", "--max-tokens", 6))
    assert set(found) >= {"baseline", "edited", "edits", "positions", "inactive_positions", "tokens_per_second"}
    assert set(found["baseline"]) >= ARM
    assert set(found["edited"]) >= ARM
    assert [(e["feature"], e["strength"]) for e in found["edits"]] == [(3, 0), (4, 0.5)]
    assert found["prompt"]["format"] == "chat"
    assert parsed(cli("generate", "The nurse", "--json", "--raw", "--max-tokens", 2))["prompt"]["format"] == "raw"


EDITED = (
    "--set", "3=2", "--ablate", 4, "--steer", "5=-1.5@generated", "--project", "6", "--project", "7=0.5",
    "--scale", "8=0.5@last", "--reconstruct", "--at", "prompt",
)  # fmt: skip

KINDS = [
    (3, "set", 2.0, "prompt"),
    (4, "scale", 0.0, "prompt"),
    (5, "steer", -1.5, "generated"),
    (6, "project", 0.0, "prompt"),
    (7, "project", 0.5, "prompt"),
    (8, "scale", 0.5, "last"),
    (-1, "reconstruct", 0.0, "prompt"),
]


def kinds(edits):
    return [(e["feature"], e["kind"], e["strength"], e["at"]) for e in edits]


@pytest.mark.parametrize("verb", [("generate", "The nurse"), ("probes",)])
def test_edits_of_every_kind_are_recorded_in_their_order(cli, verb):
    found = parsed(cli(*verb, "--json", "--max-tokens", 3, *EDITED))
    generated = found if verb[0] == "generate" else found["rows"][0]["generated"]
    assert kinds(generated["edits"]) == kinds(found["edits"]) == KINDS
    assert [e["absolute"] is not None for e in generated["edits"]] == [True, False, True, False, False, False, False]


def test_generate_samples_as_it_is_told(cli):
    options = (
        "--temperature",
        1,
        "--seed",
        7,
        "--top-k",
        50,
        "--top-p",
        0.9,
        "--min-p",
        0.01,
        "--stop",
        "q",
        "--stop",
        "z",
    )
    more = ("--samples", 2, "--prefill", "She", "--variant", "scale 3=2, reconstruct, at last", "--variant", "ablate 5")
    found = parsed(cli("generate", "The nurse", "--json", "--ablate", 3, "--max-tokens", 4, *options, *more))
    assert found["sampling"] == {
        "max_tokens": 4, "temperature": 1.0, "seed": 7, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "stop": ["q", "z"],
    }  # fmt: skip
    assert found["prompt"]["prefill"] == "She"
    assert [kinds(edits) for edits in found["variants"]] == [
        [(3, "scale", 2.0, "last"), (-1, "reconstruct", 0.0, "last")],
        [(5, "scale", 0.0, "all")],
    ]
    assert [(o["sample"], o["edited"], o["variant"]) for o in found["more"]] == [
        (0, True, 0), (0, True, 1), (1, False, None), (1, True, None), (1, True, 0), (1, True, 1),
    ]  # fmt: skip
    table = parsed(cli("probes", "--json", "--max-tokens", 4, *options))
    assert table["rows"][0]["generated"]["sampling"] == found["sampling"]


@pytest.mark.parametrize("options", [("--temperature", "nan"), ("--seed", 2**63), ("--samples", 2)])
def test_sampling_that_makes_no_sense_is_refused_before_anything_is_loaded(cli, monkeypatch, options):
    monkeypatch.setattr("engine.cli.command.Command.open", lambda self: pytest.fail("loaded"))
    code, out, err = cli("generate", "x", *options)
    assert (code, out) == (2, "") and options[0] in err


def test_a_variant_acts_where_the_edits_do_unless_it_says_otherwise(cli):
    variants = ("--variant", "ablate 4, scale 5=2@last", "--variant", "at all, ablate 4", "--variant", "none")
    found = parsed(cli("generate", "x", "--json", "--max-tokens", 2, "--ablate", 3, "--at", "generated", *variants))
    places = [[e["at"] for e in edits] for edits in (found["edits"], *found["variants"])]
    assert places == [["generated"], ["generated", "last"], ["all"], []]


def test_more_than_one_edited_text_is_shown_without_being_asked_to_compare(cli):
    code, out, err = cli("generate", "The nurse", "--max-tokens", 3, "--ablate", 3, "--variant", "reconstruct")
    assert code == 0
    assert "edited: 3 ablated" in out
    assert "variant 1: reconstructed, the SAE's error dropped" in out
    assert "lossy: " in out
    code, out, err = cli("generate", "The nurse", "--max-tokens", 3, "--ablate", 3, "--at", "first-step")
    assert "edited" not in out
    assert "first step: " in err  # the text alone goes to standard output
    code, out, err = cli("probes", "--max-tokens", 3, "--reconstruct", "--at", "first-step")
    assert "lossy: " in out
    assert "first step: " in out


def test_a_packaged_list_acts_where_it_is_told_to():
    options = [
        "--ablate",
        "@gender@last",
        "--ablate",
        "3",
        "--at",
        "generated",
        "--variant",
        "ablate @gender, at prompt",
    ]
    args = parser().parse_args(["generate", "x", *options])
    features = feature_lists.read("gender")
    assert edits(args) == (*(Edit(i, at="last") for i in features), Edit(3, at="generated"))
    assert variants(args) == (tuple(Edit(i, at="prompt") for i in features),)


PUBLISHED = [(4, "scale", 0.125, "first-step"), (-1, "reconstruct", 0.0, "first-step")]


def test_a_feature_is_edited_as_the_prompt_set_says_that_it_was(cli):
    options = ("--json", "--max-tokens", 2, "--prompts", "founding_5v2", "--published", 4)
    assert kinds(parsed(cli("generate", "The nurse", *options))["edits"]) == PUBLISHED
    found = parsed(cli("generate", "x", *options, "--ablate", 5, "--at", "last"))
    assert kinds(found["edits"]) == [*PUBLISHED, (5, "scale", 0.0, "last")]
    assert kinds(parsed(cli("probes", *options))["edits"]) == PUBLISHED


def test_show_feature_and_probes_print_json(cli):
    shown = parsed(cli("show", 3, "--json"))
    assert len(shown["activations"]) == len(shown["prompts"]) == len(SENTENCES)
    described = parsed(cli("feature", 3, "--json", "--top", 4))
    assert [len(described[k]) for k in ("strongest", "promoted", "suppressed")] == [4, 4, 4]
    table = parsed(cli("probes", "--json", "--ablate", 3, "--max-tokens", 3))
    assert [row["probe"]["text"] for row in table["rows"]] == ["Who?", "What now"]
    assert [a["name"] for a in table["rows"][0]["answers"]] == ["she", "he"]
    assert table["rows"][1]["answers"] == []


def test_doctor_reports_its_checks_and_fails_where_one_fails(cli):
    code, out, err = cli("doctor", "--json")
    found = json.loads(out)
    assert set(found) >= {"checks", "l0", "variance_explained"}
    assert all(set(check) == {"name", "ok", "detail", "remedy"} for check in found["checks"])
    oks = {check["name"]: check["ok"] for check in found["checks"]}
    assert oks["variance explained"] is False  # a random SAE explains nothing
    assert oks["no-op edit exact"] is oks["fed token ids"] is oks["d_in"] is oks["SAE's hook"] is True
    assert code == 1
    assert "found something wrong" in err


def test_text_goes_to_standard_output_and_remarks_to_standard_error(cli):
    code, out, err = cli("rank", "--top", 3)
    assert code == 0
    assert out.splitlines()[0].startswith("feature")
    assert "blocks.1.hook_resid_pre" in err
    assert "blocks.1" not in out
    code, out, _ = cli("generate", "The nurse", "--raw", "--compare", "--max-tokens", 4, "--ablate", 3)
    assert code == 0
    assert "edited: 3 ablated" in out


@pytest.mark.parametrize(
    ("argv", "code", "part"),
    [
        (("generate", "x", "--ablate", D_SAE), 2, f"no feature {D_SAE}: this SAE has features 0 to {D_SAE - 1}"),
        (("generate", "x", "--ablate", 3, "--scale", "3=2"), 2, "Feature 3 is edited twice"),
        (("generate", "x", "--ablate", "x"), 2, "a feature is a number"),
        (("generate", "x", "--ablate", "-3"), 2, "a feature is a number"),
        (("generate", "x", "--ablate", "9" * 5000), 2, "a feature is a number"),
        (("generate", "x", "--ablate", "@gender"), 2, "belongs to the demo SAE"),
        (("generate", "x", "--scale", "x"), 2, "--scale x"),
        (("generate", "x", "--scale", "3"), 2, "expected FEATURE=FACTOR"),
        (("generate", "x", "--scale", "3=much"), 2, "expected FEATURE=FACTOR"),
        (("generate", "x", "--scale", "3=nan"), 2, "not a number"),
        (("generate", " "), 2, "prompt is empty"),
        (("generate", "\udcff"), 2, "'\\udcff' is not in UTF-8"),
        (("generate", "x", "--prefill", "\udcff"), 2, "is not in UTF-8"),
        (("generate", "x", "--stop", "\udcff"), 2, "is not in UTF-8"),
        (("generate", "x", "--temperature", "-1"), 2, "--temperature"),
        (("generate", "x", "--ablate", 3, "--variant", f"ablate {D_SAE}"), 2, f"no feature {D_SAE}"),
        (("generate", "x", "--reconstruct", "--reconstruct"), 2, "reconstructed twice"),
        (("generate", "x", "--project", "3@last", "--project", "4"), 2, "different positions"),
        (("show", D_SAE), 2, f"no feature {D_SAE}"),
        (("feature", D_SAE), 2, f"no feature {D_SAE}"),
        (("rank", "--by", "g"), 2, "four prompts"),
        (("rank", "--hook", "blocks.9.hook_resid_pre"), 2, "blocks 0 to 2"),
    ],
)
def test_bad_usage_exits_with_2_and_says_what_to_do(cli, argv, code, part):
    found, out, err = cli(*argv)
    assert found == code
    assert out == ""
    assert part in err
    assert "Unexpected error" not in err


@pytest.mark.parametrize(
    ("argv", "code", "part"),
    [
        (("rank", "--prompts", "gendre_bias"), 1, "Packaged sets: "),
        (("rank", "--prompts", "nowhere/x.toml"), 1, "no prompt set file"),
        (("rank", "--prompts", "n" * 300), 1, "cannot be read: File name too long"),
        (("rank", "--session", "n" * 300), 2, "File name too long"),
        (("rank", "--session", "~nobodyhere/x.json"), 2, "~nobodyhere/x.json: Could not determine home directory"),
        (("replay", "n" * 300), 2, "File name too long"),
        (("export", "~nobodyhere/x.json"), 2, "Could not determine home directory"),
        (("rank", "--model", "n" * 300, "--sae", "x"), 2, "File name too long"),
        (("rank", "--reference", "n" * 300), 2, "File name too long"),
        (("rank", "--threads", "100000"), 2, "--threads must be between 1 and 1,024"),
        (("rank", "--model", "somewhere"), 2, "Which SAE?"),
        (("rank", "--model", "somewhere", "--sae", "nowhere"), 1, "no SAE folder nowhere"),
        (("rank", "--device", "toaster"), 2, "Unknown device"),
        (("rank", "--dtype", "int1"), 2, "Unknown dtype"),
        (("replay", "nowhere.json"), 1, "cannot be read"),
        (("export", "nowhere.json"), 1, "cannot be read"),
        (("generate", "x", "--ablate", "@nothing"), 2, "no feature list @nothing"),
        (("generate", "x", "--ablate", "@nothing@last"), 2, "no feature list @nothing"),
        (("generate", "x", "--variant", "ablate @nothing"), 2, "no feature list @nothing"),
        (("generate", "x", "--ablate", "3=2"), 2, "--ablate 3=2: expected FEATURE|@LIST.\nFor example --ablate 4133."),
        (("generate", "x", "--set", "3"), 2, "--set 3: expected FEATURE=MAXIMA.\nFor example --set 4133=2."),
        (("generate", "x", "--steer", "3=x"), 2, "--steer 3=x: expected FEATURE=MAXIMA"),
        (("generate", "x", "--project", "3="), 2, "--project 3=: expected FEATURE[=FACTOR]"),
        (("generate", "x", "--scale", "3=2@end"), 2, "there is no position 'end'.\nPositions: all, prompt, generated"),
        (("probes", "--set", "²=2"), 2, "--set ²: a feature is a number"),
        (("generate", "x", "--max-tokens", "0"), 2, "--max-tokens must be"),
        (("generate", "x", "--top-k", "-1"), 2, "--top-k must be"),
        (("generate", "x", "--top-p", "0"), 2, "--top-p must be"),
        (("generate", "x", "--top-p", "1.1"), 2, "--top-p must be"),
        (("generate", "x", "--top-p", "nan"), 2, "--top-p must be"),
        (("generate", "x", "--min-p", "-0.1"), 2, "--min-p must be"),
        (("generate", "x", "--min-p", "1.5"), 2, "--min-p must be"),
        (("generate", "x", "--stop", ""), 2, "--stop must be"),
        (("generate", "x", "--samples", "2"), 2, "--samples 2 needs a temperature"),
        (("generate", "x", "--samples", "1000000000000"), 2, "--samples must be between 1 and 4,096"),
        (("generate", "x", "--variant", ""), 2, "'' is no edit"),
        (("generate", "x", "--variant", "scale 3=2 ablate 4"), 2, "'scale 3=2 ablate 4' is no edit"),
        (("generate", "x", "--variant", "scale"), 2, "'scale' is no edit"),
        (("generate", "x", "--variant", "reconstruct 3"), 2, "'reconstruct 3' is no edit"),
        (("generate", "x", "--variant", "ablate 3, at once"), 2, "there is no position 'once'"),
        (
            ("generate", "x", "--variant", "scale 3"),
            2,
            "scale 3: expected FEATURE=FACTOR.\nFor example scale 4133=0.125.",
        ),
        (("generate", "x", "--variant", "set x=2"), 2, "set x: a feature is a number"),
        (("generate", "x", "--prompts", "hedging"), 2, "--prompts for --published alone"),
        (("generate", "x", "--published", "4"), 2, "no [settings]"),
        (("generate", "x", "--published", "4", "--prompts", "hedging"), 2, "such as founding_5v2"),
        (("generate", "x", "--published", "4", "--prompts", "nowhere"), 1, "no prompt set 'nowhere'"),
        (("probes", "--published", "4"), 2, "no [settings]"),
        (("generate", "x", "--published", "4=1", "--prompts", "founding_5v2"), 2, "--published 4=1: a feature is"),
    ],
)
def test_mistakes_are_found_before_anything_is_loaded(capsys, argv, code, part):
    assert main(list(argv)) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert part in printed.err
    assert printed.err.startswith("error: ") or "\nerror: " in printed.err


@pytest.mark.parametrize(
    "argv",
    [
        ("dance",),
        ("rank", "--top", "0"),
        ("rank", "--top", "many"),
        ("rank", "--by", "beauty"),
        ("rank", "--pool", "median"),
        ("show",),
        ("show", "x"),
        ("generate",),
        ("generate", "x", "--at", "end"),
        ("generate", "x", "--samples", "0"),
        ("probes", "--prefill", "It is"),
        ("probes", "--samples", "2"),
        ("probes", "--variant", "ablate 3"),
        ("export", "x", "--format", "pdf"),
        ("--json",),
    ],
)
def test_arguments_that_do_not_parse_exit_with_2(capsys, argv):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: saescope" in capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_exits_with_1(cli, tmp_path):
    code, out, err = cli("rank", "--model", tmp_path / "nothing")
    assert (code, out) == (1, "")
    assert "Cannot load the model" in err
    assert "Give --model a folder" in err


def test_stopping_exits_with_130(files, capsys):
    class Stopped:
        def stream(self, request):
            raise KeyboardInterrupt

    assert main(["rank"], connect=Stopped) == 130
    assert "Stopped" in capsys.readouterr().err


# ---- sessions


@pytest.fixture
def recorded(cli, tmp_path):
    """A session file with a ranking, a generation and a table of probes."""
    path = tmp_path / "run.saescope.json"
    edit = ("--scale", "3=-8", "--max-tokens", 8, "--session", path)
    assert cli("rank", "--top", 5, "--session", path)[0] == 0
    assert cli("generate", "The nurse", *edit)[0] == 0
    assert cli("probes", *edit)[0] == 0
    return path


def test_results_are_added_to_the_session(recorded):
    found = session.read(recorded)
    assert [len(x) for x in (found.of(Ranking), found.of(Generated), found.of(ProbeTable))] == [1, 1, 1]
    assert [s.name for s in found.prompt_sets] == ["tiny"]  # once, though two results come from it
    assert found.load.dtype == found.loaded.dtype == "float32"


def test_replay_says_same_and_json_agrees(cli, recorded):
    code, out, err = cli("replay", recorded, loads=False)
    assert code == 0
    assert len(out.splitlines()) == 4
    assert all(line.startswith("same") for line in out.splitlines())
    assert "recorded" not in err
    found = parsed(cli("replay", recorded, "--json", loads=False))
    assert all(r["same"] for r in found["results"])


def test_a_text_with_edits_of_every_kind_samples_and_variants_is_kept_replayed_and_exported(cli, tmp_path):
    path = tmp_path / "run.saescope.json"
    options = ("--temperature", 1, "--samples", 2, "--variant", "set 9=4", "--prefill", "She", "--session", path)
    assert cli("generate", "The nurse", "--max-tokens", 5, *EDITED, *options)[0] == 0
    assert cli("probes", "--max-tokens", 3, *EDITED, "--session", path)[0] == 0
    found = parsed(cli("replay", path, "--json", loads=False))
    names = [arm["name"] for arm in found["results"][0]["arms"]]
    assert names == ["baseline", "edited", "variant 1", *(f"sample 2 {x}" for x in ("baseline", "edited", "variant 1"))]
    assert [text["same"] for text in found["results"]] == [True] * 3
    out = cli("export", path, loads=False)[1]
    assert "3 set to 2 x its maximum (prompt), 4 ablated (prompt), 5 steered by -1.5 (generated)" in out
    assert "| sample | baseline | edited | variant 1: 9 set to 4 x its maximum (prompt) |" in out
    assert "- put in the model's mouth: 'She'" in out
    assert cli("export", path, "--format", "csv", "--table", "generations", loads=False)[1].count("She") >= 4


def test_replay_in_another_dtype_reports_and_does_not_fail(cli, recorded):
    code, out, err = cli("replay", recorded, "--dtype", "bfloat16", loads=False)
    assert code == 0
    assert "dtype: recorded float32, now bfloat16" in err
    assert all(line.startswith(("same", "DIFFERS", "    ")) for line in out.splitlines())
    assert sum(not line.startswith("    ") for line in out.splitlines()) == 4


def test_replay_names_the_first_divergence_and_its_margin(cli, recorded):
    text = recorded.read_text("utf-8")
    first = session.read(recorded).of(Generated)[0].edited
    ids = json.dumps(list(first.token_ids))
    assert text.count(ids) >= 1
    wrong = json.dumps([*first.token_ids[:2], first.token_ids[2] + 1, *first.token_ids[3:]])
    recorded.write_text(text.replace(f'"token_ids": {ids}', f'"token_ids": {wrong}'), "utf-8")
    code, out, _ = cli("replay", recorded, loads=False)
    assert code == 0
    assert "edited first diverges at token 3" in out
    assert "nats apart" in out


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (("--format", "md"), ["# saescope session", "## Probes", "| feature |"]),
        (("--format", "jsonl"), ['"type":"Loaded"', '"type":"Ranking"', '"type":"Generated"', '"type":"ProbeTable"']),
        (("--format", "csv"), ["ranking,rank,feature,tokens,score"]),
        (("--format", "csv", "--table", "generations"), ["generation,prompt,edits"]),
        (("--format", "csv", "--table", "probes"), ["table,probe,prefill", "she", "3 x -8"]),
    ],
)
def test_export_writes_every_format(cli, recorded, tmp_path, argv, parts):
    code, out, err = cli("export", recorded, *argv, loads=False)
    assert (code, err) == (0, "")
    assert all(part in out for part in parts)
    target = tmp_path / "out.txt"
    assert cli("export", recorded, *argv, "--output", target, loads=False)[1] == ""
    assert target.read_text("utf-8") == out
    code, _, err = cli("export", recorded, *argv, "--output", tmp_path / "no" / "out.txt", loads=False)
    assert code == 1
    assert "Cannot write" in err


def test_a_session_of_another_sae_is_not_added_to(cli, recorded, tmp_path):
    before = recorded.read_bytes()
    other = write_sae(tmp_path / "other", seed=9)
    code, _, err = cli("generate", "The nurse", "--max-tokens", 2, "--session", recorded, "--sae", other)
    assert code == 1
    assert "another SAE" in err
    assert recorded.read_bytes() == before


def test_every_error_class_has_an_exit_code():
    def all_of(kind):
        return [kind, *(c for sub in kind.__subclasses__() for c in all_of(sub))]

    assert {kind.__name__: kind.exit_code for kind in all_of(SaescopeError) if kind.exit_code == 2}.keys() == {
        "UsageError",
        "EditError",
        "HookError",
    }


# ---- faults found by these tests, mended since


@pytest.mark.parametrize(
    "verb", [("rank",), ("generate", "The nurse", "--max-tokens", 2), ("probes", "--max-tokens", 2)]
)
def test_a_result_is_printed_even_where_the_session_cannot_be_written(cli, tmp_path, verb):
    (tmp_path / "file").write_text("")
    code, out, err = cli(*verb, "--session", tmp_path / "file" / "x.json")
    assert code == 1
    assert "cannot be written" in err
    assert out


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_a_seed_too_large_is_bad_usage(cli, seed):
    code, _, err = cli("generate", "x", "--temperature", 1, "--max-tokens", 2, "--seed", seed)
    assert code == 2
    assert "--seed" in err


@pytest.mark.parametrize("hook", ["lm_head", "model", "model.layers.1.mlp.gate_proj"])
def test_a_module_that_does_not_put_out_the_residual_stream_is_a_hook_error(cli, hook):
    code, _, err = cli("rank", "--hook", hook)
    assert code == 2
    assert "Unexpected error" not in err
    assert hook in err


def test_a_session_of_another_dtype_is_refused_and_kept(cli, tmp_path):
    path = tmp_path / "run.saescope.json"
    assert cli("rank", "--session", path)[0] == 0
    before = path.read_bytes()
    code, out, err = cli("rank", "--session", path, "--dtype", "bfloat16")
    assert code == 1
    assert "another dtype" in err
    assert out
    assert path.read_bytes() == before


def test_a_prompt_longer_than_the_context_is_bad_usage(cli):
    code, _, err = cli("generate", "x" * 1000, "--raw", "--max-tokens", 100)
    assert code == 2
    assert "1,024" in err


@pytest.mark.parametrize("argv", [("presets",), ("presets", "--json"), ("generate", "--help")])
def test_an_output_that_is_not_utf_8_stops_nothing(argv):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    code = "import sys, saescope; sys.exit(saescope.main())"
    done = subprocess.run([sys.executable, "-c", code, *argv], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and (argv[-1] != "--json" or json.loads(done.stdout))


def test_json_has_escapes_where_the_output_lacks_the_characters(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr("sys.stdout", out)
    write_json('{"x": "\u00e9 \u2028 \U0001f600"}')
    out.flush()
    printed = out.buffer.getvalue().decode("ascii")
    assert json.loads(printed) == {"x": "\u00e9 \u2028 \U0001f600"}

"""The command line end to end on the tiny model: JSON keys, exit codes, messages."""

import json

import pytest
from tiny import D_SAE, SENTENCES, write_sae

from engine import session
from engine.cli import main
from engine.errors import SaescopeError

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
        (("generate", "x", "--ablate", "@gender"), 2, "belongs to the demo SAE"),
        (("generate", "x", "--scale", "x"), 2, "--scale x"),
        (("generate", "x", "--scale", "3"), 2, "expected FEATURE=FACTOR"),
        (("generate", "x", "--scale", "3=much"), 2, "expected FEATURE=FACTOR"),
        (("generate", "x", "--scale", "3=nan"), 2, "not a number"),
        (("generate", " "), 2, "prompt is empty"),
        (("generate", "x", "--temperature", "-1"), 2, "--temperature"),
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
        (("rank", "--model", "somewhere"), 2, "Which SAE?"),
        (("rank", "--model", "somewhere", "--sae", "nowhere"), 1, "no SAE folder nowhere"),
        (("rank", "--device", "toaster"), 2, "Unknown device"),
        (("rank", "--dtype", "int1"), 2, "Unknown dtype"),
        (("replay", "nowhere.json"), 1, "cannot be read"),
        (("export", "nowhere.json"), 1, "cannot be read"),
        (("generate", "x", "--ablate", "@nothing"), 2, "no feature list @nothing"),
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
        ("generate", "x", "--max-tokens", "0"),
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
    assert [len(x) for x in (found.rankings, found.generations, found.probe_tables)] == [1, 1, 1]
    assert [s.name for s in found.prompt_sets] == ["tiny"]  # once, though two results come from it
    assert found.load.dtype == found.loaded.dtype == "float32"


def test_replay_says_same_and_json_agrees(cli, recorded):
    code, out, err = cli("replay", recorded, loads=False)
    assert code == 0
    assert len(out.splitlines()) == 4
    assert all(line.startswith("same") for line in out.splitlines())
    assert "recorded" not in err
    found = parsed(cli("replay", recorded, "--json", loads=False))
    assert all(r["same"] for r in [*found["rankings"], *found["generations"]])


def test_replay_in_another_dtype_reports_and_does_not_fail(cli, recorded):
    code, out, err = cli("replay", recorded, "--dtype", "bfloat16", loads=False)
    assert code == 0
    assert "dtype: recorded float32, now bfloat16" in err
    assert all(line.startswith(("same", "DIFFERS", "    ")) for line in out.splitlines())
    assert sum(not line.startswith("    ") for line in out.splitlines()) == 4


def test_replay_names_the_first_divergence_and_its_margin(cli, recorded):
    text = recorded.read_text("utf-8")
    first = session.read(recorded).generations[0].edited
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

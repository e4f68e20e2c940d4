"""Commands that parse back to what they stand for, and a script that generates what the engine does."""

import ast
import runpy
import shlex
import subprocess
import warnings
from dataclasses import replace

import msgspec
import pytest
import samples
from tiny import write_sae

from engine.cli import command as cli
from engine.cli.run import parser
from engine.files.export.command_line import command_line
from engine.files.export.nnsight_script import nnsight_snippet
from engine.loading.demo import feature_lists
from engine.records import Edit, Generate, Generated, Load, Loaded, Prompt, Sampling
from engine.records.edits import EDIT_KINDS, Linear, SlotMaths
from engine.records.words.safe_text import safe
from engine.serving.client import ask
from engine.serving.local import LocalClient

QUESTION = "Who fed the lab rats, and did she say 'yes'?"

LOADS = [
    Load(),
    Load("some/model", "my sae's folder", "blocks.1.hook_resid_pre", "cuda:1", "float16", 4, "a b.txt"),
    Load(model="-odd", sae="--odder"),
]

EVERYTHING = (
    Edit(12, 2.0, "set", "prompt"),
    Edit(3, at="last"),
    Edit(9, -3.5, "steer", "generated"),
    Edit(kind="reconstruct", at="first-step"),
    Edit(7, 0.0, "project"),
    Edit(8, 0.5, "project"),
    Edit(10, 0.0, "set"),
    Edit(11, 0.0, "steer", "first-step"),
)

EDITS = [
    (),
    (Edit(3),),
    (Edit(5, 0.1), Edit(3), Edit(4), Edit(6, -1e-30), Edit(7, 1e300)),
    (Edit(3, at="last"), Edit(4, 0.5, at="last")),
    (Edit(kind="reconstruct"),),
    EVERYTHING,
]

SAMPLINGS = [Sampling(), Sampling(1, 0.7, 2**63 - 1, 40, 0.9, 0.05, ("\n", "--x", "a 'b'")), Sampling(seed=-1, top_k=3)]


def read_back(command):
    words = shlex.split(command)
    assert words[:2] == ["saescope", "generate"]
    return parser().parse_args(words[1:])


QUESTIONS = [QUESTION, "-x", "--", '$HOME `ls` \\ "a"\nb;c é', "4=5"]


@pytest.mark.parametrize("q", range(len(QUESTIONS)))
@pytest.mark.parametrize("e", range(len(EDITS)))
def test_the_command_parses_back(e, q):
    """Every two values come up together, but not every combination of them all."""
    edits, question, raw = EDITS[e], QUESTIONS[q], (e // 3 + q) % 2 == 1
    load, sampling = LOADS[(e + q) % 3], SAMPLINGS[(e + 2 * q) % 3]
    args = read_back(command_line(load, Generate(Prompt(question, "raw" if raw else "chat"), edits, sampling)))
    assert (args.prompt, args.raw, args.compare) == (question, raw, bool(edits))
    assert cli.edits(args) == edits
    assert cli.sampling(args) == sampling
    assert (args.prefill, args.samples, cli.variants(args)) == ("", 1, ())
    assert Load(**{name: getattr(args, name) for name in Load.__struct_fields__}) == load


def test_what_a_terminal_would_act_on_is_not_copied_as_it_is_and_comes_out_the_same():
    question = "it's \x1b]0;x\x07 \\ \x9b2J \u202e\u200b a\u200db \udcff\n\U000e0041 漢字"
    command = command_line(Load(sae="\x1b[201~"), Generate(Prompt(question)))
    assert safe(command) == command
    found = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    words = found.decode("utf-8", "surrogateescape").split("\0")[:-1]
    assert words == ["saescope", "generate", "--raw", "--sae", "\x1b[201~", question]


@pytest.mark.parametrize("variants", [((Edit(1),),), (EVERYTHING, (Edit(3, 2.0),)), tuple(EDITS[1:])])
@pytest.mark.parametrize(("edits", "prefill"), zip(EDITS, ["It is", "--x", "-x"] * 2, strict=True))
def test_prefill_samples_and_variants_parse_back(edits, variants, prefill):
    sampling = Sampling(temperature=0.5)
    request = Generate(Prompt("Who?", "chat"), edits, sampling, prefill=prefill, samples=3, variants=variants)
    args = read_back(command_line(Load(), request))
    assert (args.prefill, args.samples, cli.variants(args)) == (prefill, 3, variants)
    assert (cli.edits(args), cli.sampling(args)) == (edits, sampling)


def test_what_a_strength_came_to_is_not_asked_for():
    recorded = (Edit(12, 2.0, "set", absolute=7.25),)
    command = command_line(Load(), Generate(Prompt("Who?", "chat"), recorded))
    assert command == "saescope generate --compare --set 12=2.0 'Who?'"


def test_defaults_are_left_out_and_long_lists_are_not():
    assert command_line(Load(), Generate(Prompt("Who?", "chat"))) == "saescope generate 'Who?'"
    edits = tuple(Edit(i) for i in range(200))
    many = command_line(Load(), Generate(Prompt("Who?"), edits, Sampling(max_tokens=8)))
    assert many.startswith("saescope generate --raw --compare --ablate 0 --ablate 1 ")
    assert many.endswith(" --ablate 199 --max-tokens 8 'Who?'")


KINDS = [
    ("blocks.1.hook_resid_pre", "jumprelu", "constant_norm_rescale", False, False),
    ("blocks.1.hook_resid_post", "jumprelu", "layer_norm", True, False),
    ("model.layers.0", "standard", "none", None, False),
    ("blocks.2.hook_resid_pre", "standard", "none", None, True),
    ("blocks.1.hook_resid_mid", "jumprelu", "none", False, False),
    ("blocks.1.hook_mlp_out", "topk", "constant_norm_rescale", True, False),
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(map(str, kind)))
def opened(request, load, tmp_path_factory):
    """The tiny model with a SAE of each kind: (number of the kind, load, loaded, engine)."""
    hook, encoder, normalisation, b_dec, old = request.param
    sae = write_sae(tmp_path_factory.mktemp("sae"), encoder, normalisation, b_dec, hook=hook, old=old)
    load = msgspec.structs.replace(load, sae=str(sae))
    engine = LocalClient()
    return KINDS.index(request.param), load, ask(engine, load, Loaded), engine


def run(script, tmp_path):
    """The script's generated token ids, run from a file: nnsight reads its own source."""
    path = tmp_path / "script.py"
    path.write_text(script, "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(runpy.run_path(str(path))["new"])


SCRIPTED = {
    "none": (),
    "ablated": (Edit(3), Edit(7), Edit(11), Edit(20)),
    "scaled": (Edit(3, -6.0), Edit(7, 4.0), Edit(9, 0.5)),
    "set and steered": (Edit(3, 4.0, "set"), Edit(7, -3.0, "steer"), Edit(9, -6.0)),
    "at places": (
        Edit(3, 9.0, "set", "last"),
        Edit(7, 5.0, "steer", "generated"),
        Edit(9, -9.0, at="prompt"),
        Edit(11, -4.0, "set", "first-step"),
        Edit(20, -2.0, "steer"),
    ),
    "projected": (Edit(3, 0.0, "project"), Edit(7, -2.0, "project"), Edit(9, 4.0, "set")),
    "projected at places": (Edit(3, -3.0, "project", "prompt"), Edit(7, 0.5, "project", "prompt"), Edit(9, 3.0, "set")),
    "reconstructed": (Edit(kind="reconstruct"), Edit(3, -4.0)),
    "as published": (Edit(3, 0.125, at="first-step"), Edit(kind="reconstruct", at="first-step")),
}


@pytest.mark.parametrize("name", SCRIPTED)
def test_the_script_generates_what_the_engine_does(opened, tmp_path, capsys, name):
    number, load, loaded, engine = opened
    raw = (list(SCRIPTED).index(name) + number) % 2
    request = Generate(Prompt(QUESTION, "raw" if raw else "chat"), SCRIPTED[name], Sampling(12))
    expected = ask(engine, request, Generated)
    sink_norm = engine._pair.site.reference.sink_norm
    recorded = msgspec.structs.replace(request, edits=expected.edits)
    found = run(nnsight_snippet(loaded, load, recorded, sink_norm), tmp_path)
    assert found == expected.edited.token_ids
    assert capsys.readouterr().out == expected.edited.text + "\n"
    if name not in ("none", "ablated"):
        assert found != expected.baseline.token_ids  # the edit is not nothing


@pytest.mark.parametrize("bos", ["always", "never"])
@pytest.mark.parametrize("format", ["raw", "chat"])
def test_the_script_feeds_a_bos_where_the_engine_does(load, tmp_path, format, bos):
    load = msgspec.structs.replace(load, bos=bos)
    engine = LocalClient()
    loaded = ask(engine, load, Loaded)
    request = Generate(Prompt(QUESTION, format), (Edit(3, -6.0),), Sampling(12))
    expected = ask(engine, request, Generated)
    found = run(nnsight_snippet(loaded, load, request, engine._pair.site.reference.sink_norm), tmp_path)
    assert found == expected.edited.token_ids
    assert f"--bos {bos}" in command_line(load, request)


def test_a_kind_that_is_a_row_of_the_table_alone_is_generated_with_and_scripted(load, client, tmp_path, monkeypatch):
    slot = SlotMaths(gain=Linear(-1.0, 0.5), offset=Linear(2.0, -1.0), push=Linear(factor=0.25))
    monkeypatch.setitem(EDIT_KINDS, "bend", replace(EDIT_KINDS["set"], slot=slot))
    request = Generate(Prompt(QUESTION), (Edit(3, 4.0, "bend"), Edit(7, -5.0, "bend"), Edit(9, -6.0)), Sampling(12))
    expected = ask(client, request, Generated)
    recorded = msgspec.structs.replace(request, edits=expected.edits)
    text = nnsight_snippet(client._pair.loaded, load, recorded, client._pair.site.reference.sink_norm)
    assert run(text, tmp_path) == expected.edited.token_ids != expected.baseline.token_ids
    without = ask(client, msgspec.structs.replace(request, edits=request.edits[2:]), Generated)
    assert without.edited.token_ids != expected.edited.token_ids


@pytest.mark.parametrize("raw", [False, True])
def test_the_script_begins_with_the_prefill_and_ends_at_a_stop_string(load, client, tmp_path, raw):
    loaded = client._pair.loaded
    request = Generate(Prompt(QUESTION, "raw" if raw else "chat"), (Edit(3, -6.0),), Sampling(12), prefill="She")
    text = ask(client, request, Generated).edited.text
    stop = (text[4:6], "never said")
    request = msgspec.structs.replace(request, sampling=Sampling(12, stop=stop))
    expected = ask(client, request, Generated).edited
    found = run(nnsight_snippet(loaded, load, request, client._pair.site.reference.sink_norm), tmp_path)
    assert found == expected.token_ids
    assert len(found) < 12


def test_what_a_script_cannot_know_is_said_in_it():
    text = script(edits=(Edit(12, 2.0, "set"), Edit(3), Edit(9, 1.0, "steer", absolute=3.5)))
    assert "# left out: 12 set to 2 x its maximum; generate with it first" in text
    assert "EDITS = {3: 0.0, 9: 3.5}" in text
    published = (Edit(3, at="first-step"), Edit(kind="reconstruct", at="first-step"))
    assert "# lossy: " in script(edits=published)
    assert "# first step: " in script(edits=published)


DEMO, ABLATED = Load(), (Edit(3),)


def script(load=DEMO, edits=ABLATED, question="Who?", sink_norm=None):
    request = Generate(Prompt(question, "chat"), edits, Sampling(8))
    return nnsight_snippet(samples.LOADED, load, request, sink_norm)


def test_it_is_short_and_python_whatever_goes_in():
    for question in ("x", 'quo"te\'s {braces} \\ \n\r\0 \u2028 \ud800 """', ""):
        for edits in ((), (Edit(3),), tuple(Edit(i, 0.1 * i) for i in range(100, 500))):
            text = script(edits=edits, question=question)
            values = {
                t.targets[0].id: t.value
                for t in ast.parse(text).body
                if isinstance(t, ast.Assign) and isinstance(t.targets[0], ast.Name)
            }
            assert ast.literal_eval(values["QUESTION"]) == question
            assert ast.literal_eval(values["EDITS"]) == {e.feature: e.strength for e in edits}
    assert len(script().splitlines()) < 62
    assert max(map(len, script(edits=tuple(Edit(i) for i in range(300))).splitlines())) <= 120


def test_the_demo_is_found_through_the_package_and_other_files_where_they_were_named():
    text = script()
    assert "from engine.loading.scripts import demo_model, demo_sae" in text
    assert "demo_model(torch.float32)" in text
    assert "/home" not in text
    text = script(Load(model="org/model", sae="~/sae"))
    assert "engine" not in text
    assert "MODEL = 'org/model'" in text
    assert "Path('~/sae').expanduser()" in text


def test_the_sink_mask_is_there_where_its_norm_is_known():
    assert "h.norm(dim=-1) <= 12.5" in script(sink_norm=12.5)
    assert "also leaves attention sinks" in script()


@pytest.mark.demo
def test_on_the_demo_too(demo, tmp_path):
    load = Load(dtype="float32", device="cpu")
    edits = tuple(Edit(feature) for feature in feature_lists.read("gender"))
    request = Generate(Prompt(QUESTION, "chat"), edits, Sampling(12))
    expected = ask(demo, request, Generated)
    assert run(nnsight_snippet(demo._pair.loaded, load, request), tmp_path) == expected.edited.token_ids
    assert expected.edited.token_ids != expected.baseline.token_ids

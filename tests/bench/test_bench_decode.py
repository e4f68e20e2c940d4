"""Rows 1 to 6 and 11 of the bench: that everybody does the same work, and what is counted.

But for one, no test asserts a time.
"""

import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from engine.bench import contenders, ours, subjects, table
from engine.bench.rows import ablation, screen, step, toggle
from engine.bench.rows import decoding as pair
from engine.bench.timing import Row
from engine.generation import decoding as decode
from engine.generation.steps import Steps
from engine.loading.load_model import load_model
from engine.records.errors import ModelError, SaescopeError
from tui.bench import lateness
from tui.bench.stand_in import tokens_at
from tui.state.texts import differing

CPU = torch.device("cpu")

TOKENS = 20  # the step is captured on the way

MISSING = "The packaged demo model is not installed."


@pytest.fixture(scope="module")
def subject():
    return subjects.tiny(CPU)


@pytest.fixture(scope="module")
def edits(subject):
    return subject.ablations()


@pytest.fixture
def no_demo(monkeypatch):
    def missing(*args):
        raise ModelError(MISSING)

    for module in (pair, step, toggle, ablation):
        monkeypatch.setattr(module, "usual", missing)


# ---- who generates what


def test_all_contenders_generate_the_same_texts(subject, edits):
    decoded = ours.pair(subject, TOKENS, edits)()
    baseline, edited = (arm.ids for arm in decoded.arms)
    assert len(baseline) == len(edited) == TOKENS
    assert baseline != edited
    for run in (contenders.transformers_run, contenders.nnsight_run):
        assert run(subject, TOKENS, ())() == baseline
        assert run(subject, TOKENS, edits)() == edited
    assert ours.alone(subject, TOKENS, subject.editor(edits))() == edited
    with_kl = ours.pair(subject, TOKENS, edits, kl=True)()
    assert [arm.ids for arm in with_kl.arms[:2]] == [baseline, edited]
    assert len(with_kl.kl) == TOKENS


def test_hooks_of_contenders_are_gone_afterwards(subject, edits):
    module = subject.model.bare.get_submodule(subject.hook.path)
    contenders.transformers_run(subject, 2, edits)()
    assert not module._forward_pre_hooks


def test_ablations_are_of_features_that_fire(subject, edits):
    (h_TD,) = subject.model.capture_batch(subject.hook, [subject.prompt])
    features = [edit.feature for edit in edits]
    f_TK = torch.relu(h_TD @ subject.sae.w_enc_DF[:, features] + subject.sae.b_enc_F[features])
    assert ((f_TK > 0).sum(0) > 3).all()
    fires = float((torch.relu(h_TD @ subject.sae.w_enc_DF + subject.sae.b_enc_F) > 0).float().mean())
    assert 0.03 < fires < 0.09


def test_without_edits_there_is_no_hook(monkeypatch, subject):
    monkeypatch.setattr(contenders, "changed", None)
    assert len(contenders.transformers_run(subject, 2, ())()) == 2


def test_no_token_ends_a_text(files):
    model = load_model(files.model, "tiny", CPU, torch.float32)
    assert model.end_ids() != set()
    assert subjects.endless(model).end_ids() == set()
    assert model.bare.generation_config.eos_token_id is None


def test_saelens_ablates_with_its_error_kept(subject):
    pytest.importorskip("sae_lens")
    theirs = contenders.saelens_model(subject)
    assert (theirs.cfg.n_layers, theirs.cfg.d_model, theirs.cfg.dtype) == (12, 256, torch.float32)
    ids_BT = torch.tensor([subject.prompt])
    plain = theirs.generate(
        ids_BT, max_new_tokens=4, do_sample=False, stop_at_eos=False, prepend_bos=False, return_type="tokens",
        verbose=False,
    )  # fmt: skip
    acts = []
    theirs.blocks[6].hook_resid_pre.add_hook(lambda h_BTD, hook: acts.append(h_BTD))
    theirs(ids_BT, prepend_bos=False)
    theirs.reset_hooks()
    z_TF = acts[0][0] @ subject.sae.w_enc_DF
    silent, strong = int(z_TF[-1].argmin()), int(z_TF[-1].argmax())
    sae = subjects.with_features("", subject.model, subject.hook, subject.sae.d_sae).sae
    sae.b_enc_F.zero_()  # their model's vectors are short
    sae.w_dec_FD[strong] *= 1000
    sae.w_dec_FD[silent] = 0
    assert contenders.saelens_run(theirs, sae, subject, 4, silent)() == plain[0, -4:].tolist()
    assert contenders.saelens_run(theirs, sae, subject, 4, strong)() != plain[0, -4:].tolist()
    assert theirs.acts_to_saes == {}


def test_rows_1_and_6_divide_others_by_ours(monkeypatch, subject, no_demo):
    monkeypatch.setattr(pair, "tiny", lambda device: subject)
    first, kl, nnsight, demo = pair.measure((pair.Shape(3, 2), pair.Shape(3, 1)), CPU)
    seconds = {name: times["median"] for name, times in first.raw["seconds"].items()}
    assert first.ratio == seconds["transformers"] / seconds["pair"]
    assert kl.ratio == seconds["transformers"] / seconds["pair and KL"]
    assert nnsight.ratio == seconds["nnsight"] / seconds["pair"]
    assert [row.goal for row in (first, kl, nnsight)] == [2.5, None, None]
    assert (demo.ratio, demo.note) == (None, MISSING)
    (row,) = ablation.measure(ablation.Shape(2, 1, 64), CPU)
    assert (row.ratio, row.note) == (None, MISSING)
    monkeypatch.setattr(contenders, "find_spec", lambda name: None)
    (row,) = ablation.measure(ablation.Shape(2, 1, 64), CPU)
    assert "not installed (the extra" in row.note


def test_row_6_divides_saelens_by_the_edited_row(subject):
    pytest.importorskip("sae_lens")
    rows = ablation.rows_of(subject, contenders.saelens_model(subject), ablation.Shape(2, 1, 0), 6.0)
    seconds = {name: times["median"] for name, times in rows[0].raw["seconds"].items()}
    assert [row.ratio for row in rows] == [seconds["SAELens"] / seconds[name] for name in ("edited", "pair")]
    assert [row.goal for row in rows] == [6.0, None]


# ---- steps


def test_bytes_of_a_step_are_weights_keys_and_values(subject):
    steps = Steps(subject.model, subject.editor((), ()), 128)
    steps.prompt(subject.prompt)
    held = sum(t.nbytes for layer in steps._cache.layers for t in (layer.keys, layer.values))
    module = subject.model.module
    used = [p for name, p in module.named_parameters() if name != "model.embed_tokens.weight"]
    assert step.step_bytes(subject, 128) == held + sum(p.nbytes for p in used)


def test_the_unhooked_step_is_the_bare_model(subject, edits):
    bare = step.Unhooked(subject.model, subject.sae, subject.hook, subject.reference, (edits,))
    found = Steps(subject.model, bare, 128).prompt(subject.prompt)
    with torch.inference_mode():
        expected = subject.model.bare(input_ids=torch.tensor([subject.prompt])).logits[:, -1]
    torch.testing.assert_close(found.logits_BV, expected)
    assert not found.allowed_BT.any()


def test_stepping_goes_over_the_same_positions_on_a_captured_step(monkeypatch, subject, edits):
    made = []
    monkeypatch.setattr(ours, "Steps", lambda *given: made.append(Steps(*given)) or made[-1])
    run = ours.stepping(subject, subject.editor((), edits), 5)
    (steps,) = made
    assert steps._captured is not None
    seen = []
    monkeypatch.setattr(
        steps, "step", lambda ids_B, real=steps.step: seen.append(int(steps._position.at_1)) or real(ids_B)
    )
    run()
    run()
    start = len(subject.prompt)
    assert seen == 2 * list(range(start, start + 5))


def test_rows_2_to_4(monkeypatch, subject):
    monkeypatch.setattr(step, "usual", lambda device, dtype: subject)
    sizes = step.Shape(2, 2, 1 << 16)
    (limit,), (second,), (slots,) = (step.measure(n, sizes, CPU) for n in (2, 3, 4))
    median = {name: times["median"] for name, times in limit.raw["seconds"].items()}
    rate = step.step_bytes(subject, ours.room_of(subject, 2)) * 2 / median["step"]
    assert limit.ratio == pytest.approx(rate / (2 * (1 << 16) / median["copy"]))
    assert limit.goal is None
    assert "cpu" in limit.ours
    for row, above, below in ((second, "two", "one"), (slots, "edited", "bare")):
        if row.ratio is not None:
            assert row.ratio == row.raw["seconds"][above]["median"] / row.raw["seconds"][below]["median"]
    assert len(subject.ablations(step.SLOTS)) == 64


def test_rows_2_to_5_say_where_the_demo_is_missing(monkeypatch, subject, no_demo):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    for number in (2, 3, 4):
        (row,) = step.measure(number, step.shape(True), CPU)
        assert (row.ratio, row.note) == (None, MISSING)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    (row,) = step.measure(3, step.shape(True), CPU)
    assert "not native" in row.note
    monkeypatch.setattr(toggle, "tiny", lambda device: subject)
    assert toggle.measure(toggle.Shape(4, (1,)), CPU)[-1].note == MISSING


# ---- toggle


def test_a_toggle_acts_on_the_next_token_and_off_changes_nothing(subject):
    delay, off = toggle.rows_of(subject, toggle.Shape(TOKENS, (2, 17)))
    assert (delay.ratio, delay.raw["delays"]) == (1.0, [1, 1])
    assert (off.ratio, off.raw["passes"]) == (0.0, TOKENS)
    assert delay.met
    assert off.met


@pytest.mark.parametrize(("by", "expected"), [(1, 2), (9, toggle.MARGIN + 1)])
def test_a_toggle_that_comes_late_or_never_is_seen(monkeypatch, subject, by, expected):
    put = decode.Text._put
    waiting = []

    def late(text, edits, index):
        waiting.append((edits, index))

    def choose(text, chooser, index, real=decode.Text._choose):
        while waiting and (waiting[0][1] == 0 or waiting[0][1] + by <= index):
            put(text, *waiting.pop(0))
        return real(text, chooser, index)

    monkeypatch.setattr(decode.Text, "_put", late)
    monkeypatch.setattr(decode.Text, "_choose", choose)
    assert toggle.delay(subject, (2,)) == expected


def test_an_edit_that_is_not_quite_off_is_seen(monkeypatch, subject):
    step_of = Steps.step

    def noisy(steps, ids_B):
        found = step_of(steps, ids_B)
        found.logits_BV[decode.EDITED] *= 1.001
        return found

    monkeypatch.setattr(Steps, "step", noisy)
    _, off = toggle.rows_of(subject, toggle.Shape(5, (2,)))
    assert (off.ratio, off.met) == (4.0, False)


# ---- the screen


def test_lateness_counts_the_keys_that_come_in_the_middle():
    assert screen.felt([0.0, 0.012], 0.005) == pytest.approx([0.0, 0.012, 0.007, 0.002])
    assert [screen.percentile(list(range(200)), share) for share in (0.5, 0.99, 1.0)] == [99, 197, 199]
    found = {"late": [0.0] * 90 + [0.1], "bare": [0.001], "nap": 0.005}
    row = screen.lateness("x", "said", found)
    assert row.ratio == pytest.approx(95)  # of 111 keys one waited 100 ms, one 95, one 90 ...
    assert row.contender == "an idle loop 1.0 ms"
    assert not row.met


def test_painting_is_measured_in_a_process_of_its_own():
    repaint, recoloured = screen.repaint(screen.Shape(1, 3000, 0))
    median = {name: times["median"] for name, times in repaint.raw["seconds"].items()}
    assert repaint.ratio == median["Static.update"] / median["repainted"]
    assert recoloured.ratio == median["Static.update"] / median["recoloured"]
    assert (repaint.goal, recoloured.goal) == (50.0, None)
    assert repaint.raw["sent"]["repainted"] > 5000


def test_the_real_app_streams_on_a_terminal():
    updates, late = screen.streaming(screen.Shape(0, 600, 1.0))
    assert 5 < updates.ratio < 70
    assert updates.raw["tokens"] > 50
    assert updates.raw["bytes"] > 10_000
    assert len(late.raw["late"]) > 20
    assert late.ratio > 0


def test_an_app_that_ends_early_is_an_error(monkeypatch):
    def broken(command, **given):
        return subprocess.Popen([sys.executable, "-c", "print('no such thing')"], **given)

    monkeypatch.setattr(screen, "subprocess", SimpleNamespace(Popen=broken))
    with pytest.raises(SaescopeError, match="measured nothing; its last words: no such thing"):
        screen.on_terminal({"what": "load"})


def test_row_11_says_what_is_missing(monkeypatch):
    def missing():
        raise ModelError(MISSING)

    monkeypatch.setattr(screen.demo_model, "packaged_weights", missing)
    (row,) = screen.loading()
    assert (row.ratio, row.note) == (None, MISSING)
    monkeypatch.setattr(screen.sys, "platform", "win32")
    assert {row.note for row in (*screen.streaming(screen.shape(True)), *screen.loading())} == {"needs a pty"}


def test_a_row_for_information_has_neither_goal_nor_mark():
    row = Row(1, "what", "ours", "theirs", 2.0, None)
    assert row.met is None
    assert [str(cell) for cell in table.cells(row, False)] == ["1", "what", "ours", "theirs", "2", "", ""]
    *_, ratio, goal, mark = table.cells(Row(5, "w", "", "", 2.0, 1.0, False, "tokens"), False)
    assert (str(ratio), str(goal), str(mark), str(mark.style)) == ("2 tokens", "≤ 1 tokens", "✗", "bold red")


def test_frames_count_that_show_more_text(monkeypatch):
    monkeypatch.setattr(lateness.SaescopeApp, "_display", lambda app, screen, renderable: None)
    shown = iter([3, 3, 5, 0, 0, 2])
    monkeypatch.setattr(lateness.Watched, "num_streamed", lambda app: next(shown))
    app = lateness.Watched.__new__(lateness.Watched)
    app.updates = app._seen = 0
    for _ in range(6):
        app._display(None, None)
    assert app.updates == 3


def test_long_texts_are_aligned_in_a_second():
    """With common tokens as anchors, texts of so many tokens of a language take ten seconds."""
    pairs = [tokens_at(index) for index in range(6000)]
    one, other = ([pair[row] for pair in pairs] for row in (0, 1))
    begin = time.process_time()
    marks = differing(one, other)
    assert time.process_time() - begin < 4
    assert sum(marks[0]) == pytest.approx(sum(index % 7 == 0 for index in range(6000)), abs=5)

"""`saescope bench` on tiny shapes: structure, equal work, files removed. No test asserts a time."""

import json
import tempfile
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
import torch

from engine.bench import machine, run, table
from engine.bench import timing as result
from engine.bench.rows import capture, memory, start
from engine.bench.rows import encoding as encode
from engine.bench.rows import loading as load
from engine.cli.run import main
from engine.features.pooling import batches, pool_prompts
from engine.loading.demo.model import finish
from engine.models.sae import TOKENS_PER_BLOCK
from engine.records.errors import SaescopeError, UsageError

CPU = torch.device("cpu")

TINY = encode.Shape(d_in=256, d_sae=6000, tokens=24, prompt_tokens=5, fires=40, rounds=2)
"""More features than one block has."""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder for temporary files of its own, to see that nothing stays."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("vectors", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("file", [torch.float32, torch.bfloat16])
def test_ours_and_saelens_compute_the_same_numbers(vectors, file):
    pytest.importorskip("sae_lens")
    data = encode.make(TINY, CPU)
    theirs_TF = encode.their_encode(data)()
    pooled = encode.statistics(encode.our_sae(data, file), data.h_TD.to(vectors), TINY.prompt_tokens)
    prompts = theirs_TF.split(TINY.prompt_tokens)
    # bfloat16 keeps eight bits: values of about 3 are rounded by less than 0.03, and sums of a few of them by more
    close = 1e-5 if (vectors, file) == (torch.float32, torch.float32) else 0.05
    np.testing.assert_allclose(pooled.value_PF, torch.stack([p.amax(0) for p in prompts]), atol=close)
    np.testing.assert_allclose(pooled.maximum_F, theirs_TF.amax(0), atol=close)
    np.testing.assert_allclose(pooled.sum_F, torch.cat(prompts[:3]).sum(0), atol=3 * close)
    fires = float((theirs_TF > 0).sum(1).float().mean())
    assert fires == pytest.approx(TINY.fires, rel=0.3)


def test_row_7_compares_with_saelens_and_the_product(monkeypatch):
    monkeypatch.setattr(encode, "find_spec", lambda name: None)
    rows = encode.measure(TINY, CPU)
    assert [row.ratio is None for row in rows] == [True, False] * (len(rows) // 2)
    assert "not installed" in rows[0].note
    assert rows[0].met is None
    monkeypatch.undo()
    pytest.importorskip("sae_lens")
    rows = encode.measure(TINY, CPU)
    assert all(row.ratio > 0 and row.raw["seconds"]["SAELens"]["median"] > 0 for row in rows)
    assert {row.raw["vectors"] for row in rows} <= {"torch.float32", "torch.bfloat16"}


def test_row_8_measures_in_a_process_of_its_own():
    sizes = memory.Shape(d_in=64, d_sae=8192, tokens=3000, prompt_tokens=50, fires=20)
    row = memory.row_of(sizes, CPU, torch.float32)
    assert row.raw["extra"] >= row.raw["result"] // 2 > 0
    assert row.raw["dense"] == 3000 * 8192 * 4


def test_row_9_on_a_model_by_name(files):
    (row,) = capture.measure(capture.Shape(rows=2, tokens=4, rounds=2), CPU, files.model)
    assert row.ratio > 0
    assert (row.raw["blocks"], row.raw["blocks_run"]) == (3, 1)
    with pytest.raises(SaescopeError, match="no such folder"):
        capture.measure(capture.Shape(1, 1, 1), CPU, "./missing")


def test_row_9_says_where_the_demo_is_missing(monkeypatch):
    monkeypatch.setattr("engine.loading.demo.model.converted_folder", lambda dtype: load.Path("/nowhere"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (row,) = capture.measure(capture.Shape(1, 1, 1), CPU, None)
    assert row.ratio is None
    assert "not installed" in row.note


def test_first_paint_is_seen_and_the_app_is_ended(temporary):
    (row,) = start.measure(1)
    assert row.ratio > 0
    assert row.raw["seconds"]["import"]["median"] > 0
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("kind", ["sae", "model"])
def test_row_10_loads_files_and_removes_them(temporary, kind):
    rows = load.measure(kind, load.Shape(size=300_000, rounds=1), CPU)
    assert [row.goal for row in rows] == [1.2, 1.1, 1.15]
    assert rows[0].ratio > 0
    assert rows[0].raw["size"] > 100_000
    assert rows[0].raw["peak"] >= 0
    assert list(temporary.iterdir()) == []


def test_files_are_removed_on_ctrl_c_too(temporary, monkeypatch):
    def stop(module, argument):
        assert (load.Path(argument["folder"]) / "large" / "cfg.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(load, "in_child", stop)
    with pytest.raises(KeyboardInterrupt):
        load.measure("sae", load.Shape(100_000, 1), CPU)
    assert list(temporary.iterdir()) == []


def test_a_full_disk_is_said_and_nothing_is_written(temporary):
    rows = load.measure("sae", load.Shape(1 << 60, 1), CPU)
    assert {row.ratio for row in rows} == {None}
    assert "GB free" in rows[0].note
    assert list(temporary.iterdir()) == []


def test_a_failing_process_is_an_error_with_its_last_words():
    with pytest.raises(SaescopeError, match=r"engine.bench.rows.memory failed: .*no_such"):
        result.in_child("engine.bench.rows.memory", {"device": "cpu", "file": "float32", "no_such": 1})


def test_contenders_take_turns_and_the_first_round_does_not_count():
    order = []
    times = result.in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b"] * 3
    assert times["a"].smallest <= times["a"].median <= times["a"].largest


def test_rows_are_chosen_by_number():
    assert run.chosen_rows(None) == list(range(1, 12))
    assert run.chosen_rows("8, 7,8") == [7, 8]
    for wrong in ("0", "12", "seven", ""):
        with pytest.raises(UsageError, match="--rows"):
            run.chosen_rows(wrong)


def test_the_verb_prints_json_and_a_table(monkeypatch, capsys):
    row = result.Row(9, "capture", "1 ms", "forward 2 ms", 1.2, 1.05, at_least=False, raw={"blocks": 3})
    rows = [row, replace(row, ratio=None, note="not there"), replace(row, ratio=1.0)]
    monkeypatch.setitem(run.ROWS, 9, (("capture", lambda device, quick, model: rows),))
    assert main(["bench", "--rows", "9", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [r["met"] for r in found["rows"]] == [False, None, True]
    assert found["rows"][0]["raw"] == {"blocks": 3}
    assert found["machine"]["versions"]["torch"] == version("torch")
    assert found["machine"]["threads"] == 1
    assert main(["bench", "--rows", "9"]) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("✗", "✓", "not there", "≤ 1.05"))
    assert main(["bench", "--rows", "9", "--quick"]) == 0
    shown = capsys.readouterr().out
    assert "not comparable" in shown
    assert "✗" not in shown
    assert main(["bench", "--rows", "12"]) == 2


def test_the_machine_is_named():
    found = machine.describe(CPU)
    assert found["cpu"]
    assert found["cores"] > 0
    assert all(isinstance(line, str) for line in table.machine_in_words(found))


@pytest.mark.parametrize("lengths", [[3], [TOKENS_PER_BLOCK + 9, 1], [600, 600, 424, 1], [1, TOKENS_PER_BLOCK, 1]])
def test_batches_hold_every_prompt_once_and_at_most_a_block(lengths):
    found = list(batches(lengths))
    assert [p for some in found for p in some] == list(range(len(lengths)))
    assert all(len(some) == 1 or sum(lengths[p] for p in some) <= TOKENS_PER_BLOCK for some in found)


def test_pooling_in_several_batches_is_pooling_each_alone():
    data = encode.make(replace(TINY, tokens=2 * TOKENS_PER_BLOCK), CPU)
    sae = encode.our_sae(data, torch.float32)
    vectors = list(data.h_TD.split(700))
    masks = [torch.arange(len(h)) % 3 > 0 for h in vectors]
    together = finish(pool_prompts(sae, vectors, masks, "mean", 2))
    alone = [finish(pool_prompts(sae, [h], [mask], "mean", 1)) for h, mask in zip(vectors, masks, strict=True)]
    np.testing.assert_allclose(together.value_PF, np.concatenate([a.value_PF for a in alone]), atol=1e-5)
    np.testing.assert_allclose(together.sum_F, alone[0].sum_F + alone[1].sum_F, atol=1e-2)
    np.testing.assert_allclose(together.maximum_F, np.stack([a.maximum_F for a in alone]).max(0), atol=1e-5)

"""Row 9: the time of a capture up to a hook, against the same share of the time of a full forward pass.

The hook is the output of block L, so that L+1 of N blocks run; the forward pass is the whole body without LM head.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from engine.bench.rows.encoding import app_dtype, short
from engine.bench.timing import Row, as_raw, in_turn, spread
from engine.loading.demo import model as demo_model
from engine.loading.load_model import choose_dtype, load_model
from engine.models.hooks import resolve_hook
from engine.models.language_model import LanguageModel
from engine.records.errors import ModelError


@dataclass(frozen=True)
class Shape:
    """What the model reads: `rows` sequences of `tokens` random tokens."""

    rows: int
    tokens: int
    rounds: int


def shape(quick: bool) -> Shape:
    """Return the shape of a batch like that of a prompt set, or a smaller one."""
    return Shape(rows=4, tokens=32, rounds=5) if quick else Shape(rows=8, tokens=64, rounds=15)


def measure(sizes: Shape, device: torch.device, source: str | None) -> list[Row]:
    """Measure the row on the packaged demo model, or on the model `source`. Raises ModelError for the latter."""
    what = "capture to block L ÷ (L+1)/N of a forward pass"
    try:
        model = open_model(source, device)
    except ModelError as error:
        if source is not None:
            raise
        return [Row(9, what, "", "", None, 1.05, at_least=False, note=error.message)]
    return [row_of(model, sizes, what)]


def open_model(source: str | None, device: torch.device) -> LanguageModel:
    """Load the model `source`, or the packaged demo model, as the app would."""
    if source is not None:
        return load_model(source, source, device, choose_dtype(None, device))
    dtype = app_dtype(device)
    return load_model(str(demo_model.demo_model_folder(dtype)), demo_model.NAME, device, dtype)


def row_of(model: LanguageModel, sizes: Shape, what: str) -> Row:
    """Time capture and forward pass in turn."""
    config = model.module.config.get_text_config()
    num_blocks, num_run = int(config.num_hidden_layers), max(1, int(config.num_hidden_layers) // 2)
    hook = resolve_hook(model.module, f"blocks.{num_run - 1}.hook_resid_post")
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(5, int(config.vocab_size), (sizes.rows, sizes.tokens), generator=generator)
    rows, ids_BT = ids_BT.tolist(), ids_BT.to(model.device)
    body = model.module.base_model

    def forward() -> None:
        with torch.inference_mode():
            body(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), use_cache=False)

    settle = torch.cuda.synchronize if model.device.type == "cuda" else None
    contenders = {"capture": lambda: model.capture_batch(hook, rows), "forward": forward}
    times = in_turn(contenders, sizes.rounds, settle)
    raw = {"shape": asdict(sizes), "blocks": num_blocks, "blocks_run": num_run, "seconds": as_raw(times)}
    ours = (
        f"{spread(times['capture'], 1e-3, 'ms')} for {num_run} of {num_blocks} blocks, {model.name}, "
        f"{short(model.dtype)}"
    )
    ratio = times["capture"].median / (times["forward"].median * num_run / num_blocks)
    return Row(9, what, ours, f"forward {spread(times['forward'], 1e-3, 'ms')}", ratio, 1.05, at_least=False, raw=raw)

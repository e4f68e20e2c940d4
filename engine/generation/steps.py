"""Take all rows of a batch one token further: a forward pass over static keys and values, edited row by row.

Everything that a step depends on is in tensors at fixed addresses: token ids, position, keys and values, edits. So a
step can be captured once and replayed without Python: as a CUDA graph on a GPU, and on a CPU as a trace, which saves
the interpreter's share (two fifths of a step of a 12-layer model of width 256, a fifth of the demo model's). A captured
step is used only if it computes what the plain one does, bit for bit on a CPU.

Shape suffixes: B rows, T tokens, V vocabulary, L room for tokens, U rows read once for rows that are alike, 1 one.
"""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from engine.generation import kv_cache as static_cache
from engine.generation.edits import GENERATED, LAST, PROMPT, ResidualEditor
from engine.models.hooks import changed
from engine.models.language_model import LanguageModel

log = logging.getLogger("saescope")

SHORTEST = 128
"""The smallest room in tokens; larger rooms are powers of two, so that few different steps are captured."""

CAPTURE_AFTER = {"cpu": 16, "cuda": 0}
"""Plain steps of a kind before it is captured: on a CPU, a short text would not repay the capture."""

CLOSE = 1e-2
"""Largest difference of a CUDA graph's logits from the plain step's, in units of the largest: kernels may differ."""

READS_DATA = {
    *("item", "_local_scalar_dense", "is_nonzero", "equal", "allclose"),
    *("nonzero", "nonzero_numpy", "argwhere", "masked_select", "bincount", "repeat_interleave"),
    *("unique_dim", "unique_consecutive", "_unique", "_unique2"),
}
"""Operations that bring numbers to Python, or whose output shapes depend on them: a capture would not follow these."""


class Pass(NamedTuple):
    """The result of a forward pass: logits after the last token, where edits might act, and where they did."""

    logits_BV: torch.Tensor
    allowed_BT: torch.Tensor
    active_BT: torch.Tensor


Body = Callable[[], tuple[torch.Tensor, ...]]


def room_for(num_tokens: int) -> int:
    """Return the room for this many tokens, one of few sizes."""
    return max(SHORTEST, 1 << (num_tokens - 1).bit_length())


class Steps:
    """Rows in lockstep, each under its own edits: `editor` has one edit list per row. `plain`: no step is captured."""

    def __init__(self, model: LanguageModel, editor: ResidualEditor, length: int, plain: bool = False) -> None:
        self.model, self.editor, self.length, self.plain = model, editor, length, plain
        self.rows = len(editor.rows)
        self._module = model.bare
        self._hooked = self._module.get_submodule(editor.hook.path)
        config = self._module.config.get_text_config()
        device = model.device
        self.static = static_cache.fits(config)
        self.whole = not self.static and not static_cache.own_cache_agrees(self._module, config)
        """Whether each step reads the whole text anew, because the family's own cache gives other numbers."""
        self._seen_BT = torch.zeros(self.rows, 0, dtype=torch.long, device=device)
        self._past_BTD: torch.Tensor | None = None
        self._position = static_cache.Position(device)
        self._masks = static_cache.Masks(config, model.dtype, length, device) if self.static else None
        self._cache: Any = static_cache.make_cache(config, self._position, length) if self.static else None
        self._ids_B1 = torch.zeros(self.rows, 1, dtype=torch.long, device=device)
        self._kind_B1 = torch.full((self.rows, 1), GENERATED, device=device)
        self._captured: Body | None = None
        self._captured_of: tuple[Any, ...] = ()
        self._plain_steps = 0

    @torch.inference_mode()
    def prompt(self, ids: Sequence[int], like: Sequence[int] | None = None) -> Pass:
        """Start anew: all rows read the same prompt.

        `like` names for each row the first row that is under the same edits: such rows are read once.
        """
        if like is None or len(ids) == 1 or not self.static:
            like = range(self.rows)
        read = sorted(set(like))
        row_U = torch.tensor(read, device=self.model.device)
        copy_B = torch.tensor([read.index(row) for row in like], device=self.model.device)
        if not self.static and not self.whole:
            self._cache = DynamicCache(config=self._module.config)
        self._go_to(0)
        self._position.copy_B = copy_B
        try:
            result = self._read_prompt(ids, row_U)
        finally:
            self._position.copy_B = None
        self._position.at_1.fill_(len(ids))
        return Pass(*(part[copy_B] for part in result))

    def _read_prompt(self, ids: Sequence[int], row_U: torch.Tensor) -> Pass:
        """Run the prompt's pass for some of the rows."""
        device, num_rows, num_tokens = self.model.device, len(row_U), len(ids)
        ids_UT = torch.tensor([list(ids)] * num_rows, device=device)
        kind_UT = torch.tensor([[PROMPT] * (num_tokens - 1) + [LAST]] * num_rows, device=device)
        mask = None
        if self._masks:
            one = num_tokens == 1
            mask = self._masks.step(self._position.at_1, num_rows) if one else self._masks.prompt(num_tokens, num_rows)
        place_UT = torch.arange(num_tokens, device=device).expand(num_rows, num_tokens)
        return self._forward(ids_UT, kind_UT, mask, place_UT, row_U)

    @torch.inference_mode()
    def step(self, ids_B: torch.Tensor) -> Pass:
        """Let each row read one more token. The next step overwrites what is returned."""
        self._ids_B1.copy_(ids_B[:, None])
        result = Pass(*self._run())
        self._position.at_1.add_(1)
        return result

    @torch.inference_mode()
    def rewind(self, position: int) -> bool:
        """Take back what was read from this position on; return False where that is not possible."""
        possible = self.static or self.whole
        if possible:
            self._go_to(position)
        return possible

    def _go_to(self, position: int) -> None:
        """Set the position, and zero the keys and values from there on: a mask does not keep a NaN away."""
        self._position.at_1.fill_(position)
        self._seen_BT = self._seen_BT[:, :position]
        self._past_BTD = None if self._past_BTD is None or position == 0 else self._past_BTD[:, :position]
        for layer in self._cache.layers if self.static else ():
            if layer.is_initialized:
                layer.keys[:, :, position:].zero_()
                layer.values[:, :, position:].zero_()

    def _forward(
        self,
        ids_BT: torch.Tensor,
        kind_BT: torch.Tensor,
        mask: Any,
        place_BT: torch.Tensor,
        row_B: torch.Tensor | None = None,
    ) -> Pass:
        if self.whole:
            return self._forward_whole(ids_BT, kind_BT, row_B)
        self.editor.expect(ids_BT, kind_BT, in_prompt=row_B is not None, row_B=row_B)
        with self.editor.applied(self._hooked):
            out = self._module(
                input_ids=ids_BT,
                attention_mask=mask,
                position_ids=place_BT,
                past_key_values=self._cache,
                use_cache=True,
                # an index, not a slice: a slice's rows are not contiguous, and torch would multiply each with a copy
                # of the unembedding
                logits_to_keep=place_BT[0, -1:] if place_BT.shape[1] > 1 else 0,
            )
        return Pass(out.logits[:, -1], self.editor.allowed_BT, self.editor.active_BT)

    def _forward_whole(self, ids_BT: torch.Tensor, kind_BT: torch.Tensor, row_B: torch.Tensor | None) -> Pass:
        """Run the text so far and the new tokens without a cache; what left the hook before stays as it was edited."""
        num_before = self._seen_BT.shape[1]
        self._seen_BT = torch.cat([self._seen_BT, ids_BT], 1)
        before_BT = torch.full_like(self._seen_BT[:, :num_before], GENERATED)
        self.editor.expect(self._seen_BT, torch.cat([before_BT, kind_BT], 1), row_B is not None, row_B)
        with changed(self._hooked, self.editor.hook, self._edit_last):
            out = self._module(input_ids=self._seen_BT, use_cache=False)
        return Pass(out.logits[:, -1], *(b[:, num_before:] for b in (self.editor.allowed_BT, self.editor.active_BT)))

    def _edit_last(self, h_BTD: torch.Tensor) -> torch.Tensor:
        """Return the vectors with those after the past edited, and the past's as they were."""
        edited_BTD = self.editor.edit(h_BTD)
        if self._past_BTD is not None:
            edited_BTD = torch.cat([self._past_BTD, edited_BTD[:, self._past_BTD.shape[1] :]], 1)
        self._past_BTD = edited_BTD.clone()
        return edited_BTD

    def _body(self) -> tuple[torch.Tensor, ...]:
        """Run one step from tensors to tensors: this is what gets captured."""
        position_1 = self._position.at_1
        mask = self._masks.step(position_1, self.rows) if self._masks else None
        return tuple(self._forward(self._ids_B1, self._kind_B1, mask, position_1[None].expand(self.rows, 1)))

    def _read(self) -> list[torch.Tensor]:
        """Return the tensors that a step reads and whose contents change."""
        return [self._ids_B1, self._position.at_1, *self.editor.tensors]

    def _held(self) -> list[torch.Tensor]:
        """Return the large tensors that a step reads besides: weights, keys and values."""
        layers = [(layer.keys, layer.values) for layer in self._cache.layers]
        sae = [value for value in vars(self.editor.sae).values() if isinstance(value, torch.Tensor)]
        module = self._module
        return [*module.parameters(), *module.buffers(), *(t for pair in layers for t in pair), *sae]

    def _run(self) -> tuple[torch.Tensor, ...]:
        key = (self.editor.shape, *(tensor.data_ptr() for tensor in self._read()))
        if key != self._captured_of:
            self._captured, self._captured_of, self._plain_steps = None, key, 0
        if self._captured is not None:
            return self._captured()
        self._plain_steps += 1
        if (
            self.static
            and not self.plain
            and self._plain_steps == 1 + CAPTURE_AFTER.get(self.model.device.type, 1 << 62)
        ):
            return self._capture()
        return self._body()

    def _capture(self) -> tuple[torch.Tensor, ...]:
        """Run a step the plain way and capture it, if what it does can be captured."""
        with Watch() as watch:
            plain = self._body()
        if watch.found:
            log.info("the step is not captured: it reads data (%s)", ", ".join(sorted(watch.found)))
            return plain
        try:
            on_gpu = self.model.device.type == "cuda"
            captured = graph(self._body) if on_gpu else trace(self._body, [*self._read(), *self._held()])
            again = captured()
        except Exception:  # what this version of torch cannot capture still runs the plain way
            log.exception("the step cannot be captured")
            return plain
        if same(plain, again):
            self._captured = captured
        else:
            log.warning("the captured step differs from the plain one and is not used")
        return plain


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes operations that bring numbers to Python."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        # x[mask] has as many rows as the mask has true values
        by_mask = name.startswith("index") and any(i.dtype == torch.bool for i in tensors_in(args[1:]))
        if name in READS_DATA or by_mask:
            self.found.add(name)
        return func(*args, **(kwargs or {}))


def tensors_in(values: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors among an operation's arguments, those in lists included."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def trace(body: Body, tensors: Sequence[torch.Tensor]) -> Body:
    """Capture the body on a CPU: its operations in sequence, as TorchScript runs them. It reads `tensors`.

    They are the trace's inputs. A tensor that is not an input is a constant to the trace: some versions of torch might
    precompute with it, and the trace never releases it. The operations are not fused: they are those of the plain step,
    so the numbers are too, bit for bit.

    TorchScript is deprecated. torch names two successors: torch.export, whose program AOTInductor compiles ahead of
    time, and torch.compile. Both fuse operations, so `same` would need a tolerance, and both need a C++ compiler where
    saescope runs. Whatever replaces the trace replaces this function alone; without it steps run the plain way.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that shapes become constants, as they should, and that traces are deprecated
        traced = torch.jit.trace(lambda *_: body(), tuple(tensors), check_trace=False)  # type: ignore[no-untyped-call]

    def run() -> tuple[torch.Tensor, ...]:
        # fusing would gain nothing and slow down the first runs
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            outputs: tuple[torch.Tensor, ...] = traced(*tensors)
        return outputs

    return run


def graph(body: Body) -> Body:
    """Capture the body on a GPU: a CUDA graph, which reads and writes the memory it was captured with."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # libraries set themselves up in the first runs, which must not be captured
            body()
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with uncollected(), torch.cuda.graph(captured):
        outputs = body()

    def run() -> tuple[torch.Tensor, ...]:
        captured.replay()
        return outputs

    return run


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, collect no garbage: a CUDA graph that is deleted while another is captured ends the capture."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def same(plain: Sequence[torch.Tensor], captured: Sequence[torch.Tensor]) -> bool:
    """Return whether a captured step computed the same: bit for bit on a CPU, closely on a GPU."""
    logits, again = plain[0].float(), captured[0].float()
    if not logits.is_cuda:
        return all(torch.equal(a, b) for a, b in zip(plain, captured, strict=True))
    return bool((logits - again).abs().max() <= CLOSE * logits.abs().max())

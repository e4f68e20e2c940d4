"""Row 8: peak extra memory of encode + statistics, against a matrix of all activations in float32.

Measured once for a SAE whose file is in float32, as the founding SAE's is, and once for one in the vectors' dtype, each
in a process of its own that holds weights and vectors already. Extra memory is its largest resident size during the
work minus the one before. The pooled values of every prompt, which are the result, count as extra.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch

from engine.bench.rows import encoding as encode
from engine.bench.timing import Row, in_child, peak_bytes, reset_peak


@dataclass(frozen=True)
class Shape:
    """Sizes of the SAE and of the vectors."""

    d_in: int
    d_sae: int
    tokens: int
    prompt_tokens: int
    fires: int


def shape(quick: bool) -> Shape:
    """Return 10,000 tokens in the founding shape, or fewer in a smaller one."""
    return Shape(1024, 16_384, 4000, 50, 18) if quick else Shape(4096, 65_536, 10_000, 50, 74)


def measure(sizes: Shape, device: torch.device) -> list[Row]:
    """Measure one row for each dtype of the SAE's file."""
    return [row_of(sizes, device, file) for file in dict.fromkeys((torch.float32, encode.app_dtype(device)))]


def row_of(sizes: Shape, device: torch.device, file: torch.dtype) -> Row:
    """Measure the row of a SAE whose file is in this dtype."""
    options = {**asdict(sizes), "device": str(device), "file": encode.short(file)}
    taken = in_child("engine.bench.rows.memory", options)
    dense = sizes.tokens * sizes.d_sae * 4
    result = -(-sizes.tokens // sizes.prompt_tokens) * sizes.d_sae * 4
    of_them = f"of them {result / 1e6:.0f} MB the pooled values"
    ours = f"{taken['extra'] / 1e6:.0f} MB, {of_them}; {taken['dtype']} vectors, {encode.short(file)} file"
    raw = {"shape": asdict(sizes), "extra": taken["extra"], "dense": dense, "result": result, "vectors": taken["dtype"]}
    what = f"peak extra memory at {sizes.tokens:,} tokens"
    return Row(8, what, ours, f"{dense / 1e6:.0f} MB: T × F", taken["extra"] / dense, 0.05, at_least=False, raw=raw)


def extra(sizes: Shape, device: torch.device, file: torch.dtype) -> dict[str, Any]:
    """Return the bytes that encoding and pooling take beyond weights and vectors, and the vectors' dtype."""
    small = encode.make(encode.Shape(sizes.d_in, sizes.d_sae, 1, 1, sizes.fires, 1), device)
    dtype = encode.app_dtype(device)
    sae = encode.our_sae(small, file)
    h_TD = torch.empty(sizes.tokens, sizes.d_in, dtype=dtype, device=device).normal_()
    del small
    encode.statistics(sae, h_TD[:2], 1)  # so that what libraries set up once is not counted
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = reset_peak()
    encode.statistics(sae, h_TD, sizes.prompt_tokens)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_bytes()
    return {"extra": peak - before, "dtype": encode.short(dtype)}


def main(argument: str) -> None:
    """Print the result of `extra` as one line of JSON: what the process of its own runs."""
    torch.set_num_threads(1)
    options = json.loads(argument)
    device = torch.device(options.pop("device"))
    file = getattr(torch, options.pop("file"))
    print(json.dumps(extra(Shape(**options), device, file)))


if __name__ == "__main__":
    main(sys.argv[1])

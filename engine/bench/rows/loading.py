"""Row 10, second part: loading 2 GB against reading the same bytes, and the memory that loading takes.

Random files are written to a temporary folder and removed again, also on Ctrl+C. A process of its own first loads a
tiny file of the same kind, so that imports are not counted; then it reads and loads in turn. Both times are of files
that have just been written, so they come from the system's page cache.

    load      load_sae or load_model, then one read of every page of the weights, so that nothing is left for later
    read      read() of the same files into one buffer of 16 MiB, again and again
    resident  growth of the resident size after the load, mapped file pages included
    peak      largest growth of the resident size during the load
"""

from __future__ import annotations

import gc
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from engine.bench import random_files
from engine.bench.rows.encoding import app_dtype
from engine.bench.timing import Row, Times, as_raw, in_child, peak_bytes, reset_peak, resident_bytes, spread, summary
from engine.loading.formats import load_sae
from engine.loading.load_model import load_model

Kind = Literal["sae", "model"]

BUFFER = 16 << 20

GOALS = (("load ÷ raw read", 1.2), ("resident ÷ file size", 1.1), ("peak ÷ file size", 1.15))


@dataclass(frozen=True)
class Shape:
    """Bytes of the loaded files, about, and number of rounds."""

    size: int
    rounds: int


def shape(quick: bool) -> Shape:
    """Return 2 GB, or a tenth of it."""
    return Shape(200_000_000, 3) if quick else Shape(2_000_000_000, 5)


def measure(kind: Kind, sizes: Shape, device: torch.device) -> list[Row]:
    """Measure time, resident and peak size."""
    names = {"sae": "a SAE", "model": "a model"}
    folder = Path(tempfile.gettempdir())
    needed, free = int(sizes.size * 1.15) + (16 << 20), shutil.disk_usage(folder).free
    if free < needed:
        note = f"needs {needed / 1e9:.1f} GB free in {folder}, there are {free / 1e9:.1f}; set TMPDIR"
        return [Row(10, f"{names[kind]}: {w}", "", "", None, g, at_least=False, note=note) for w, g in GOALS]
    with tempfile.TemporaryDirectory(prefix="saescope-bench-") as temporary:
        options = {"kind": kind, "device": str(device), "rounds": sizes.rounds}
        options["dtype"] = write(kind, Path(temporary), sizes.size, device)
        result = in_child("engine.bench.rows.loading", {**options, "folder": temporary})
    return rows_of(names[kind], sizes, result)


def write(kind: Kind, folder: Path, size: int, device: torch.device) -> str:
    """Write the file and a tiny one, in the dtype they will be loaded in; return that dtype's name."""
    dtype = torch.float32 if kind == "sae" else app_dtype(device)  # the founding SAE's file is of float32
    writer = random_files.write_sae if kind == "sae" else random_files.write_model
    for name, bytes_wanted in (("tiny", 1_000_000), ("large", size)):
        writer(folder / name, bytes_wanted, dtype)
    return str(dtype).removeprefix("torch.")


def rows_of(name: str, sizes: Shape, result: dict[str, Any]) -> list[Row]:
    """Return the three ratios."""
    load, read = summary(result["load"]), summary(result["read"])
    size = result["size"]
    times: dict[str, Times] = {"load": load, "read": read}
    raw = {"shape": asdict(sizes), **{k: result[k] for k in ("size", "resident", "peak", "dtype")}, "seconds": {}}
    raw["seconds"] = as_raw(times)
    file = f"{size / 1e9:.2f} GB file, {result['dtype']}, in the page cache"
    values = (load.median / read.median, result["resident"] / size, result["peak"] / size)
    descriptions = (spread(load), f"{result['resident'] / 1e9:.2f} GB", f"{result['peak'] / 1e9:.2f} GB")
    against = (f"read {spread(read)}, {file}", file, file)
    return [
        Row(10, f"{name}: {what}", ours, other, ratio, goal, at_least=False, raw=raw)
        for (what, goal), ours, other, ratio in zip(GOALS, descriptions, against, values, strict=True)
    ]


# ---- what the process of its own runs


def read_raw(folder: Path) -> None:
    """Read the weight files once."""
    buffer = bytearray(BUFFER)
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def load(kind: Kind, folder: Path, device: torch.device, dtype: torch.dtype) -> object:
    """Load as the app does, then read a number from every page of the weights."""
    if kind == "sae":
        sae = load_sae(folder, device=device)
        loaded: object = sae
        weights = [t for t in vars(sae).values() if isinstance(t, torch.Tensor)]
    else:
        loaded = model = load_model(str(folder), folder.name, device, dtype)
        weights = list(model.module.parameters())
    for weight in weights:
        weight.view(-1)[:: 4096 // weight.element_size()].sum()
    return loaded


def compare(kind: Kind, folder: Path, device: torch.device, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """Read and load in turn; return the seconds of each, and the bytes of memory of the first load."""
    load(kind, folder / "tiny", device, dtype)
    read_raw(folder / "large")
    result: dict[str, Any] = {"read": [], "load": []}
    contenders: dict[str, Callable[[], object]] = {
        "read": partial(read_raw, folder / "large"),
        "load": partial(load, kind, folder / "large", device, dtype),
    }
    for turn in range(rounds):
        for name, work in contenders.items():
            gc.collect()
            before = reset_peak()
            start = time.perf_counter()
            loaded = work()
            result[name].append(time.perf_counter() - start)
            if turn == 0 and name == "load":
                result |= {"resident": resident_bytes() - before, "peak": peak_bytes() - before}
            del loaded
    size = sum(path.stat().st_size for path in (folder / "large").glob("*.safetensors"))
    return {**result, "size": size, "dtype": str(dtype).removeprefix("torch.")}


def main(argument: str) -> None:
    """Print the result of `compare` as one line of JSON."""
    torch.set_num_threads(1)
    options = json.loads(argument)
    device, dtype = torch.device(options["device"]), getattr(torch, options["dtype"])
    print(json.dumps(compare(options["kind"], Path(options["folder"]), device, dtype, options["rounds"])))


if __name__ == "__main__":
    main(sys.argv[1])

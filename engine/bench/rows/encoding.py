"""Row 7: encode + statistics against SAELens' `encode`, and against our own plain matrix product.

The weights are random, in the founding SAE's shape, with a bias such that some 74 of 65,536 features fire per token.
SAELens holds float32 weights, as it loads them by default, and gets the vectors in float32. Ours gets the same vectors
in the dtype the app would hold them in, and weights in the dtype of the SAE's file: once float32, as in the founding
SAE's file, and once the vectors' dtype. SAELens' encode makes a matrix of all activations, ours the statistics of a
ranking.

Shape suffixes: T tokens, D d_in, F features.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec

import torch

from engine.bench.timing import Row, Times, as_raw, in_turn, spread
from engine.features.pooling import Pooled, pool_prompts
from engine.loading.demo.model import finish
from engine.loading.load_model import choose_dtype
from engine.models.sae import SaeConfig, SparseAutoencoder


@dataclass(frozen=True)
class Shape:
    """Sizes of the SAE, the vectors and the comparison."""

    d_in: int
    d_sae: int
    tokens: int
    prompt_tokens: int
    fires: int
    """Features that fire per token, on average."""
    rounds: int


def shape(quick: bool) -> Shape:
    """Return the founding shape, or a smaller one."""
    full = Shape(d_in=4096, d_sae=65_536, tokens=512, prompt_tokens=32, fires=74, rounds=5)
    return replace(full, d_in=1024, d_sae=16_384, fires=18, rounds=3) if quick else full


@dataclass(frozen=True)
class Data:
    """Random vectors in float32, and an encoder."""

    h_TD: torch.Tensor
    w_enc_DF: torch.Tensor
    bias: float


def make(sizes: Shape, device: torch.device) -> Data:
    """Make vectors and weights with standard normal pre-activations; the bias leaves `fires` of them above zero."""
    generator = torch.Generator(device).manual_seed(0)
    h_TD = torch.randn(sizes.tokens, sizes.d_in, generator=generator, device=device).bfloat16().float()
    w_enc_DF = torch.randn(sizes.d_in, sizes.d_sae, generator=generator, device=device).div_(sizes.d_in**0.5)
    share = torch.tensor(sizes.fires / sizes.d_sae, dtype=torch.float64)
    return Data(h_TD, w_enc_DF, -math.sqrt(2) * float(torch.erfinv(1 - 2 * share)))


def app_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype the app holds vectors in. On a GPU the model's file decides: bfloat16 as a rule."""
    dtype = choose_dtype(None, device)
    return dtype if isinstance(dtype, torch.dtype) else torch.bfloat16


def our_sae(data: Data, dtype: torch.dtype) -> SparseAutoencoder:
    """Return saescope's SAE with weights in a dtype."""
    d_in, d_sae = data.w_enc_DF.shape
    device = data.w_enc_DF.device
    weights = {
        "W_enc": data.w_enc_DF.to(dtype),
        "W_dec": torch.zeros(d_sae, d_in, dtype=torch.float16, device=device),  # encoding never reads it
        "b_enc": torch.full((d_sae,), data.bias, device=device),
        "b_dec": torch.zeros(d_in, device=device),
    }
    return SparseAutoencoder(SaeConfig("bench", "standard", "none", True, "", ""), weights)


def their_encode(data: Data) -> Callable[[], torch.Tensor] | None:
    """Return a run of SAELens' `encode` of the vectors; None if it is not installed."""
    if find_spec("sae_lens") is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
    d_in, d_sae = data.w_enc_DF.shape
    config = StandardSAEConfig(d_in=d_in, d_sae=d_sae, dtype="float32", device=str(data.h_TD.device))
    theirs = StandardSAE(config)
    theirs.W_enc.data = data.w_enc_DF
    theirs.b_enc.data.fill_(data.bias)

    def work() -> torch.Tensor:
        with torch.inference_mode():
            activations_TF: torch.Tensor = theirs.encode(data.h_TD)
            return activations_TF

    return work


def statistics(sae: SparseAutoencoder, h_TD: torch.Tensor, prompt_tokens: int) -> Pooled:
    """Encode the vectors and pool them by prompts, half of these positive: the work of a ranking."""
    vectors = list(torch.split(h_TD, prompt_tokens))
    masks = [torch.ones(len(h), dtype=torch.bool) for h in vectors]
    return finish(pool_prompts(sae, vectors, masks, "max", (len(vectors) + 1) // 2))


def measure(sizes: Shape, device: torch.device) -> list[Row]:
    """Measure all ratios of the row."""
    data = make(sizes, device)
    dtype = app_dtype(device)
    h_TD = data.h_TD.to(dtype)
    files = list(dict.fromkeys((torch.float32, dtype)))
    contenders: dict[str, Callable[[], object]] = {}
    for file in files:
        sae = our_sae(data, file)
        contenders[f"ours, {short(file)} file"] = partial(statistics, sae, h_TD, sizes.prompt_tokens)
    w_enc_DF = data.w_enc_DF.to(dtype)
    contenders["product"] = lambda: h_TD @ w_enc_DF
    theirs = their_encode(data)
    if theirs is not None:
        contenders["SAELens"] = theirs
    settle = torch.cuda.synchronize if device.type == "cuda" else None
    times = in_turn(contenders, sizes.rounds, settle)
    return rows_of(sizes, dtype, files, times)


def rows_of(sizes: Shape, dtype: torch.dtype, files: list[torch.dtype], times: dict[str, Times]) -> list[Row]:
    """Return, for each dtype of the SAE's file, the ratios of SAELens and of the plain product to ours."""
    per, unit = sizes.tokens / 1e3, "ms/token"
    raw = {"shape": asdict(sizes), "vectors": str(dtype), "seconds": as_raw(times)}
    rows = []
    for file in files:
        ours = times[f"ours, {short(file)} file"]
        description = f"{spread(ours, per, unit)}, {short(dtype)} vectors, {short(file)} file"
        if "SAELens" in times:
            other, note = f"SAELens {spread(times['SAELens'], per, unit)}, float32", ""
            ratio: float | None = times["SAELens"].median / ours.median
        else:
            other, ratio, note = "", None, "sae-lens is not installed (the extra `saelens`)"
        what = "SAELens' encode ÷ our encode + statistics"
        rows.append(Row(7, what, description, other, ratio, 2.5, at_least=True, note=note, raw=raw))
        product = times["product"]
        what, other = "plain matrix product ÷ encode + statistics", f"{spread(product, per, unit)}, {short(dtype)}"
        rows.append(Row(7, what, description, other, product.median / ours.median, 0.8, at_least=True, raw=raw))
    return rows


def short(dtype: torch.dtype) -> str:
    """Return the dtype's name, such as "float32"."""
    return str(dtype).removeprefix("torch.")

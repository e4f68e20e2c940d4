"""Train the demo SAE on activations of the demo model and write it in SAELens format.

    python -m engine.loading.demo.making.train OUT --samples A.jsonl.gz … [--layer L --width F --k K --steps N]

A BatchTopK SAE (Bussmann et al. 2024) on vectors scaled to norm sqrt(d), saved as jumprelu with one fixed threshold,
chosen on held-out samples so that k features fire on average. Features that die are revived by letting them explain
the rest (AuxK, Gao et al. 2024).

Only about k of F features fire per token, so after the encoder's matrix product everything is sparse, gradients
included; they are written out by hand below (checked against autograd in tests). On two cores a step of 2,048
tokens takes a third of what autograd on dense matrices takes.
Shape suffixes: N samples, D d_model, F features, E active entries of a batch.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HELD_OUT = 20_000

DEAD_AFTER_TOKENS = 400_000

AUX_WEIGHT = 1 / 32

Entries = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""(row, feature, value) of each active entry, sorted by row."""

THRESHOLD_SAMPLE = 128  # rows on which a batch's threshold is estimated


def read_samples(paths: Sequence[Path], bos: int) -> list[list[int]]:
    """Return token id sequences, each with the leading special token. Stops where a truncated file ends."""
    sequences = []
    for path in paths:
        with gzip.open(path, "rt") as file:
            try:
                for line in file:
                    ids = json.loads(line)
                    sequences.append(ids if ids[0] == bos else [bos, *ids])
            except (EOFError, json.JSONDecodeError):
                print(f"{path} is cut off; using the {len(sequences)} sequences read so far", file=sys.stderr)
    return sequences


@torch.inference_mode()
def capture(sequences: list[list[int]], layers: list[int], folder: Path, seed: int = 0) -> None:
    """Write folder/layer-L.npy for each layer: block inputs scaled to norm sqrt(d), special tokens left out.

    The system prompt, the same in every chat that has one, is kept in one chat of twenty.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from engine.loading.demo.model import demo_model_folder

    source = demo_model_folder(torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(source)
    body = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).eval().model
    special = torch.tensor([tokenizer.bos_token_id, tokenizer.eos_token_id])
    system = tokenizer.apply_chat_template([{"role": "user", "content": ""}], tokenize=False)
    system_ids = tokenizer(system[: system.index("<|im_start|>user")], add_special_tokens=False).input_ids
    body.layers = body.layers[: max(layers)]
    body.norm = torch.nn.Identity()
    captured: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    generator = np.random.default_rng(seed)
    sequences = sorted(sequences, key=len)
    started, done = time.time(), 0
    for at in range(0, len(sequences), 64):
        batch = sequences[at : at + 64]
        width = max(map(len, batch))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in batch])
        keep = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in batch])
        keep &= ~torch.isin(ids, special)
        for row, sequence in enumerate(batch):
            if sequence[: len(system_ids)] == system_ids and generator.random() > 0.05:
                keep[row, : len(system_ids)] = False
        hidden = body(input_ids=ids, attention_mask=keep.new_ones(ids.shape).long(), output_hidden_states=True)
        for layer in layers:
            h_ND = hidden.hidden_states[layer][keep].float()
            h_ND *= h_ND.shape[1] ** 0.5 / h_ND.norm(dim=-1, keepdim=True)
            captured[layer].append(h_ND.half().numpy())
        done += int(keep.sum())
        if at // 64 % 20 == 0:
            print(f"captured {done:,} tokens, {done / (time.time() - started):.0f}/s", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    for layer in layers:
        rows = np.concatenate(captured.pop(layer))
        np.random.default_rng(seed).shuffle(rows)
        np.save(folder / f"layer-{layer}.npy", rows)


@dataclass
class Weights:
    """Parameters, encoder stored feature-major: pre_NF = x_ND @ enc_FD.T + b_enc_F."""

    enc_FD: torch.Tensor
    dec_FD: torch.Tensor
    b_enc_F: torch.Tensor
    b_dec_D: torch.Tensor

    def all(self) -> list[torch.Tensor]:
        """Return the tensors, in a fixed order."""
        return [self.enc_FD, self.dec_FD, self.b_enc_F, self.b_dec_D]

    @classmethod
    def start(cls, mean_D: torch.Tensor, width: int, seed: int) -> Weights:
        """Start from random unit decoder rows, the encoder their transpose, biases that take the mean away."""
        generator = torch.Generator().manual_seed(seed)
        dec_FD = torch.nn.functional.normalize(torch.randn(width, len(mean_D), generator=generator))
        return cls(dec_FD.clone(), dec_FD, -dec_FD @ mean_D, mean_D.clone())


def sparse(
    rows_E: torch.Tensor, columns_E: torch.Tensor, values_E: torch.Tensor, shape: tuple[int, int]
) -> torch.Tensor:
    """Return a CSR matrix from entries sorted by row."""
    counts = torch.bincount(rows_E, minlength=shape[0])
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return torch.sparse_csr_tensor(starts, columns_E, values_E, shape, check_invariants=False)


@dataclass
class StepResult:
    """Gradients in the order of Weights.all(), the batch's loss, and which features fired."""

    gradients: list[torch.Tensor]
    loss: float
    fired_F: torch.Tensor


def batch_threshold(pre_NF: torch.Tensor, k: float) -> float:
    """Return the value above which k entries per row lie on average, estimated on the first rows."""
    part = pre_NF[:THRESHOLD_SAMPLE].flatten()
    wanted = max(1, int(k * len(pre_NF[:THRESHOLD_SAMPLE])))
    return max(0.0, float(part.kthvalue(part.numel() - wanted).values))


def entries_above(pre_NF: torch.Tensor, threshold: float) -> Entries:
    """Return (row, feature, value) of every entry above the threshold, sorted by row."""
    rows_E, features_E = (pre_NF > threshold).nonzero(as_tuple=True)
    return rows_E, features_E, pre_NF[rows_E, features_E].float()


def gradients_of(
    weights: Weights, x_ND: torch.Tensor, target_ND: torch.Tensor, entries: Entries, bias: bool
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return gradients of mean ||target - decode(entries)||^2 / D, and the error target - decode."""
    rows_E, features_E, values_E = entries
    n, d = x_ND.shape
    f = len(weights.enc_FD)
    decoded_ND = sparse(rows_E, features_E, values_E, (n, f)) @ weights.dec_FD
    error_ND = decoded_ND + (weights.b_dec_D if bias else 0) - target_ND
    scaled_ND = error_ND * (2 / (n * d))
    # in pieces that fit the cache: three times faster than one gather
    pieces = zip(torch.split(rows_E, 2048), torch.split(features_E, 2048), strict=True)
    d_values_E = torch.cat([torch.linalg.vecdot(scaled_ND[r], weights.dec_FD[f]) for r, f in pieces])
    order = features_E.argsort()
    by_feature = (features_E[order], rows_E[order])
    d_dec_FD = sparse(*by_feature, values_E[order], (f, n)) @ scaled_ND
    d_enc_FD = sparse(*by_feature, d_values_E[order], (f, n)) @ x_ND
    d_b_enc_F = torch.zeros(f).index_add_(0, features_E, d_values_E)
    d_b_dec_D = scaled_ND.sum(0) if bias else torch.zeros(d)
    return [d_enc_FD, d_dec_FD, d_b_enc_F, d_b_dec_D], -error_ND


def step(weights: Weights, x_ND: torch.Tensor, k: float, dead_F: torch.Tensor) -> StepResult:
    """Run one batch: BatchTopK reconstruction, plus dead features (if any) explaining its error."""
    pre_NF = (x_ND.bfloat16() @ weights.enc_FD.bfloat16().T).float() + weights.b_enc_F
    entries = entries_above(pre_NF, batch_threshold(pre_NF, k))
    gradients, error_ND = gradients_of(weights, x_ND, x_ND, entries, bias=True)
    fired_F = torch.zeros(len(weights.enc_FD), dtype=torch.bool)
    fired_F[entries[1]] = True
    dead = dead_F.nonzero()[:, 0]
    if len(dead) > 0:
        pre_dead = pre_NF[:, dead]
        rows_E, dead_E, values_E = entries_above(pre_dead, batch_threshold(pre_dead, min(64, len(dead) / 2)))
        auxiliary, _ = gradients_of(weights, x_ND, error_ND, (rows_E, dead[dead_E], values_E), bias=False)
        gradients = [g + AUX_WEIGHT * a for g, a in zip(gradients, auxiliary, strict=True)]
    return StepResult(gradients, float(error_ND.square().mean()), fired_F)


def batches(data: np.ndarray, size: int, steps: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield random batches, epoch after epoch, read in contiguous runs of a shuffled file."""
    generator = np.random.default_rng(seed)
    starts: list[int] = []
    for _ in range(steps):
        parts = []
        for _ in range(8):
            if not starts:
                starts = list(generator.permutation(np.arange(0, len(data) - size // 8, size // 8)))
            at = starts.pop()
            parts.append(data[at : at + size // 8])
        yield torch.from_numpy(np.concatenate(parts)).float()


def train(data: np.ndarray, width: int, k: int, steps: int, batch: int, lr: float, seed: int) -> Weights:
    """Train with Adam, warm-up and linear decay; the first steps use more features, which keeps them alive."""
    weights = Weights.start(torch.from_numpy(data[:50_000]).float().mean(0), width, seed)
    optimiser = torch.optim.Adam(weights.all(), lr=lr, betas=(0.9, 0.99), fused=True)
    silent_F = torch.zeros(width, dtype=torch.long)
    started = time.time()
    for index, x_ND in enumerate(batches(data, batch, steps, seed)):
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1, (index + 1) / 50, (steps - index) / (0.35 * steps))
        k_now = k * max(1.0, 2.0 - 2.0 * index / (0.2 * steps))
        result = step(weights, x_ND, k_now, silent_F > DEAD_AFTER_TOKENS)
        silent_F = torch.where(result.fired_F, 0, silent_F + len(x_ND))
        for tensor, gradient in zip(weights.all(), result.gradients, strict=True):
            tensor.grad = gradient
        # a decoder row's gradient along itself would only be undone by the normalisation
        grad, dec = weights.dec_FD.grad, weights.dec_FD
        assert grad is not None
        grad -= (grad * dec).sum(1, keepdim=True) * dec
        optimiser.step()
        dec /= dec.norm(dim=1, keepdim=True)
        if index % 100 == 0 or index == steps - 1:
            dead = int((silent_F > DEAD_AFTER_TOKENS).sum())
            pace = (time.time() - started) / (index + 1)
            print(f"step {index}  loss {result.loss:.4f}  dead {dead}  {pace:.2f} s/step", file=sys.stderr)
    return weights


def calibrate(weights: Weights, held_out_ND: torch.Tensor, k: float) -> float:
    """Return the inference threshold at which k features fire on average on held-out vectors."""
    pre_NF = held_out_ND[:4000] @ weights.enc_FD.T + weights.b_enc_F
    flat = pre_NF.flatten()
    return float(flat.kthvalue(flat.numel() - int(k * len(pre_NF))).values)


def quality(weights: Weights, held_out_ND: torch.Tensor, threshold: float) -> dict[str, float]:
    """Return variance explained (in the SAE's units), L0, dead features and the dense share on held-out vectors."""
    fired_F = torch.zeros(len(weights.enc_FD))
    residue = l0 = 0.0
    for x_ND in torch.split(held_out_ND, 2000):
        pre_NF = x_ND @ weights.enc_FD.T + weights.b_enc_F
        acts_NF = pre_NF * (pre_NF > threshold)
        fired_F += (acts_NF > 0).sum(0)
        l0 += float((acts_NF > 0).sum())
        residue += float((acts_NF @ weights.dec_FD + weights.b_dec_D - x_ND).square().sum())
    total = float((held_out_ND - held_out_ND.mean(0)).square().sum())
    n = len(held_out_ND)
    return {
        "variance_explained": 1 - residue / total,
        "l0": l0 / n,
        "silent_on_held_out": int((fired_F == 0).sum()),
        "denser_than_10_percent": int((fired_F > 0.1 * n).sum()),
    }


def save(weights: Weights, threshold: float, layer: int, folder: Path, notes: dict[str, object]) -> None:
    """Write the SAELens folder, weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        "W_enc": weights.enc_FD.T.half().contiguous(),
        "W_dec": weights.dec_FD.half().contiguous(),
        "b_enc": weights.b_enc_F,
        "b_dec": weights.b_dec_D,
        "threshold": torch.full_like(weights.b_enc_F, threshold),
    }
    save_file(tensors, folder / "sae_weights.safetensors")
    width, d_in = weights.enc_FD.shape
    config = {
        "architecture": "jumprelu",
        "d_in": d_in,
        "d_sae": width,
        "dtype": "float16",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "constant_norm_rescale",
        "reshape_activations": "none",
        "metadata": {
            "model_name": "SmolLM2-135M-Instruct",
            "hook_name": f"blocks.{layer}.hook_resid_pre",
            "hook_head_index": None,
            "context_size": 256,
            "prepend_bos": True,
            "training": notes,
        },
    }
    (folder / "cfg.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=Path, nargs="+", required=True)
    parser.add_argument("--activations", type=Path, default=Path("activations"), help="folder to keep captures in")
    parser.add_argument("--layer", type=int, default=15)
    parser.add_argument("--capture-layers", type=int, nargs="*", default=[], help="capture these in the same pass")
    parser.add_argument("--width", type=int, default=4608)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    file = args.activations / f"layer-{args.layer}.npy"
    if not file.exists():
        capture(read_samples(args.samples, bos=1), sorted({args.layer, *args.capture_layers}), args.activations)
    data = np.load(file, mmap_mode="r")
    held_out = torch.from_numpy(data[:HELD_OUT]).float()
    weights = train(data[HELD_OUT:], args.width, args.k, args.steps, args.batch, args.lr, args.seed)
    threshold = calibrate(weights, held_out, args.k)
    notes = {
        "tokens": len(data) - HELD_OUT,
        "k": args.k,
        "steps": args.steps,
        "batch": args.batch,
        "lr": args.lr,
        "seed": args.seed,
        **quality(weights, held_out, threshold),
    }
    save(weights, threshold, args.layer, args.out, notes)
    print(json.dumps(notes))


if __name__ == "__main__":
    main()

"""The formulas once more, in plain float64 numpy: what the engine's fast paths are compared with."""

import numpy as np
import torch
from tiny import BOS, EOS

from engine.generation.edits import GENERATED, LAST, PROMPT


def arrays(weights):
    """Tensors as float64 arrays."""
    return {name: tensor.double().numpy() for name, tensor in weights.items()}


def normalise(h_TD, normalisation, scale=1.0):
    """(x, u, mu) per token; `scale` is that of expected_average_only_in."""
    d = h_TD.shape[1]
    u, mu = np.ones((len(h_TD), 1)), np.zeros((len(h_TD), 1))
    if normalisation == "constant_norm_rescale":
        u = np.array([[np.sqrt(sum(v * v for v in h)) / np.sqrt(d)] for h in h_TD])
    elif normalisation == "expected_average_only_in":
        u = u / scale
    elif normalisation == "centered":
        mu = np.array([[sum(h) / d] for h in h_TD])
    elif normalisation == "layer_norm":
        mu = np.array([[sum(h) / d] for h in h_TD])
        u = np.array([[np.sqrt(sum((v - m[0]) ** 2 for v in h) / (d - 1))] for h, m in zip(h_TD, mu, strict=True)])
        return (h_TD - mu) / (u + 1e-5), u, mu
    return (h_TD - mu) / u, u, mu


def encode(
    h_TD,
    weights,
    normalisation="constant_norm_rescale",
    apply_b_dec_to_input=False,
    scale=1.0,
    k=None,
    rescale=False,
):
    """Activations_TF of every feature; gated if the weights have r_mag, topk if there is a k."""
    w = arrays(weights)
    x_TD, _, _ = normalise(np.asarray(h_TD, dtype=np.float64), normalisation, scale)
    if apply_b_dec_to_input:
        x_TD = x_TD - w["b_dec"]
    if "r_mag" in w:
        bare_TF = x_TD @ w["W_enc"]
        magnitude_TF = np.exp(w["r_mag"]) * bare_TF + w["b_mag"]
        return np.where(bare_TF + w["b_gate"] > 0, np.maximum(magnitude_TF, 0), 0.0)
    z_TF = x_TD @ w["W_enc"] + w["b_enc"]
    if rescale:
        z_TF = z_TF * np.linalg.norm(w["W_dec"], axis=1) / scale
    if k is not None:
        kth_T1 = np.sort(z_TF, axis=1)[:, -k:][:, :1]
        return np.where(z_TF >= kth_T1, np.maximum(z_TF, 0), 0.0)
    threshold_F = w.get("threshold", np.zeros(z_TF.shape[1]))
    return np.where((z_TF > threshold_F) & (z_TF > 0), z_TF, 0.0)


def decode(f_TF, h_TD, weights, normalisation="constant_norm_rescale"):
    """The reconstruction in h's own units."""
    w = arrays(weights)
    _, u, mu = normalise(np.asarray(h_TD, dtype=np.float64), normalisation)
    return u * (f_TF @ w["W_dec"] + w["b_dec"]) + mu


def acts(at, kind, spared):
    """Whether an edit for these positions acts on one of this kind; `spared`: a BOS or a sink."""
    if at == "first-step":
        return kind in (PROMPT, LAST)
    if spared:
        return False
    return (
        kind
        in {"all": (PROMPT, LAST, GENERATED), "prompt": (PROMPT, LAST), "generated": (GENERATED,), "last": (LAST,)}[at]
    )


def bites(edit, f):
    """Whether an edit has something to act on where the activations are f."""
    if edit.kind in ("scale", "set") and f[edit.feature] > 0:
        return True
    return edit.kind in ("project", "reconstruct") or (edit.kind in ("set", "steer") and edit.strength != 0)


def edited(h_TD, ids, kinds, weights, edits, reference, **how):
    """(h', where some edit may act, where one had something to act on), position by position."""
    h_TD = np.asarray(h_TD, dtype=np.float64)
    f_TF = encode(h_TD, weights, **how)
    _, u_T, mu_T = normalise(h_TD, how.get("normalisation", "constant_norm_rescale"), how.get("scale", 1.0))
    b_dec, rows = arrays(weights)["b_dec"], arrays(weights)["W_dec"]
    if how.get("rescale"):
        rows = rows * how.get("scale", 1.0) / np.linalg.norm(rows, axis=1, keepdims=True)
    out, allowed, active = h_TD.copy(), [], []
    for t, (h, f, u, mu) in enumerate(zip(h_TD, f_TF, u_T, mu_T, strict=True)):
        spared = ids[t] == BOS or np.linalg.norm(h) > reference.sink_norm
        here = [edit for edit in edits if acts(edit.at, kinds[t], spared)]
        allowed.append(bool(here))
        active.append(any(bites(edit, f) for edit in here))
        new = f.copy()
        for edit in here:
            if edit.kind == "scale":
                new[edit.feature] = edit.strength * f[edit.feature]
            elif edit.kind == "set":
                new[edit.feature] = edit.strength * float(reference.maximum_F[edit.feature])
        changed = h + u * sum((n - o) * row for n, o, row in zip(new, f, rows, strict=True))
        if any(edit.kind == "reconstruct" for edit in here):
            changed = u * (sum(n * row for n, row in zip(new, rows, strict=True)) + b_dec) + mu
        for edit in here:
            if edit.kind == "steer":
                unit = float(reference.maximum_F[edit.feature]) * reference.median_u
                changed = changed + edit.strength * unit * rows[edit.feature]
        projected = [edit for edit in here if edit.kind == "project"]
        if projected:
            columns = np.stack([rows[e.feature] / np.linalg.norm(rows[e.feature]) for e in projected], axis=1)
            factors = np.diag([e.strength for e in projected]) - np.eye(len(projected))
            changed = changed + columns @ factors @ np.linalg.pinv(columns) @ (changed - u * b_dec - mu)
        if here:
            out[t] = changed
    return out, allowed, active


@torch.no_grad()
def hidden(module, ids, layer):
    """The input of block `layer`, from transformers' own output_hidden_states, one sequence a pass."""
    out = module(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    return out.hidden_states[layer][0].double().numpy()


@torch.no_grad()
def logprobs(module, ids):
    """Log-probabilities_TV after every token of one sequence, float64."""
    logits = module(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().numpy()
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def rank_mask(ids, h_TD, sink_norm):
    """Tokens that count in a raw prompt."""
    return [i not in (BOS, EOS) and np.linalg.norm(h) <= sink_norm for i, h in zip(ids, h_TD, strict=True)]


def edit_mask(ids, h_TD, sink_norm):
    """Tokens that may be edited."""
    return [i != BOS and np.linalg.norm(h) <= sink_norm for i, h in zip(ids, h_TD, strict=True)]

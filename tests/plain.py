"""The formulas once more, in plain float64 numpy: what the engine's fast paths are compared with."""

import numpy as np
import torch
from tiny import BOS, EOS


def arrays(weights):
    """Tensors as float64 arrays."""
    return {name: tensor.double().numpy() for name, tensor in weights.items()}


def normalise(h_TD, normalisation):
    """(x, u, mu) per token."""
    d = h_TD.shape[1]
    u, mu = np.ones((len(h_TD), 1)), np.zeros((len(h_TD), 1))
    if normalisation == "constant_norm_rescale":
        u = np.array([[np.sqrt(sum(v * v for v in h)) / np.sqrt(d)] for h in h_TD])
    elif normalisation == "layer_norm":
        mu = np.array([[sum(h) / d] for h in h_TD])
        u = np.array([[np.sqrt(sum((v - m[0]) ** 2 for v in h) / (d - 1))] for h, m in zip(h_TD, mu, strict=True)])
        return (h_TD - mu) / (u + 1e-5), u, mu
    return (h_TD - mu) / u, u, mu


def encode(h_TD, weights, normalisation="constant_norm_rescale", apply_b_dec_to_input=False):
    """Activations_TF of every feature."""
    w = arrays(weights)
    x_TD, _, _ = normalise(np.asarray(h_TD, dtype=np.float64), normalisation)
    if apply_b_dec_to_input:
        x_TD = x_TD - w["b_dec"]
    z_TF = x_TD @ w["W_enc"] + w["b_enc"]
    threshold_F = w.get("threshold", np.zeros(z_TF.shape[1]))
    return np.where((z_TF > threshold_F) & (z_TF > 0), z_TF, 0.0)


def decode(f_TF, h_TD, weights, normalisation="constant_norm_rescale"):
    """The reconstruction in h's own units."""
    w = arrays(weights)
    _, u, mu = normalise(np.asarray(h_TD, dtype=np.float64), normalisation)
    return u * (f_TF @ w["W_dec"] + w["b_dec"]) + mu


def edit_delta(h_TD, weights, scales, keep_T, **kind):
    """u * sum_i (s_i - 1) * f_i * D_i on the kept tokens, 0 elsewhere; scales is {feature: s}."""
    h_TD = np.asarray(h_TD, dtype=np.float64)
    f_TF = encode(h_TD, weights, **kind)
    _, u, _ = normalise(h_TD, kind.get("normalisation", "constant_norm_rescale"))
    delta = np.zeros_like(h_TD)
    for t in range(len(h_TD)):
        if keep_T[t]:
            for feature, scale in scales.items():
                delta[t] += u[t] * (scale - 1) * f_TF[t, feature] * arrays(weights)["W_dec"][feature]
    return delta


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

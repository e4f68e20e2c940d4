"""SAE folders as other libraries write them, each with its library's formula in float64.

A writer fills a folder with random weights and returns the formula: vectors_TD to (activations_TF, reconstruction_TD),
in the words and order of the library, not of the engine. Nothing of the engine is used but to list activations.
"""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tiny import D_MODEL, D_SAE

TOKENS = 23


def vectors(tokens: int = TOKENS, d: int = D_MODEL, seed: int = 7) -> torch.Tensor:
    """Vectors of very different lengths, with a mean that is not 0."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.logspace(-1, 1, tokens)[:, None]
    return lengths * (torch.randn(tokens, d, generator=generator) + 0.5)


def dense(sae, h_TD) -> torch.Tensor:
    """Activations_TF of every feature; each pair of a token and a feature must have been spoken of once."""
    found = torch.full((len(h_TD), sae.d_sae), torch.nan)
    for active in sae.encode(h_TD):
        assert found[active.tokens, active.features].isnan().all()
        found[active.tokens, active.features] = 0
        found[active.token_N, active.feature_N] = active.value_N
    return found


def assert_same(found_TF, expected_TF, tolerance=1e-5):
    """The same active sets, and values within `tolerance` of the token's largest activation.

    Not of each value: where a product of d numbers nearly cancels, float32 leaves few digits of what remains.
    """
    found, expected = np.asarray(found_TF, dtype=np.float64), np.asarray(expected_TF, dtype=np.float64)
    assert ((found != 0) == (expected != 0)).all()
    largest = np.abs(expected).max(1, keepdims=True)
    assert (np.abs(found - expected) <= tolerance * np.maximum(largest, 1e-9)).all()


def assert_agrees(sae, formula, h_TD=None, few=True):
    """Activations and reconstructions of the engine are those of the library's formula."""
    h_TD = vectors(d=sae.d_in) if h_TD is None else h_TD
    f_TF, h_hat_TD = formula(h_TD.double().numpy())
    assert (f_TF > 0).any() and (not few or (f_TF > 0).mean() < 0.7)
    assert_same(dense(sae, h_TD), f_TF)
    found_TD, l0_T = sae.reconstruct(h_TD)
    size = np.linalg.norm(h_hat_TD, axis=1, keepdims=True)
    assert (np.abs(found_TD.numpy() - h_hat_TD) <= 1e-5 * size).all()
    assert l0_T.tolist() == (f_TF > 0).sum(1).tolist()
    features = [0, sae.d_sae - 1, sae.d_sae // 2]
    some_TK = sae.encode_features(sae.normalise(h_TD).x_TD, sae.columns(features))
    torch.testing.assert_close(some_TK, dense(sae, h_TD)[:, features], rtol=1e-4, atol=1e-5)


class Random:
    """Random tensors from one seed."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, scale: float = 1.0, mean: float = 0.0) -> torch.Tensor:
        """Of a normal distribution."""
        return mean + scale * torch.randn(*shape, generator=self.generator)

    def uniform(self, *shape: int, low: float, high: float) -> torch.Tensor:
        """Of a uniform one."""
        return low + (high - low) * torch.rand(*shape, generator=self.generator)


def relu(x):
    return np.maximum(x, 0)


def keep_top(x_TF, k):
    """Each row's k largest, elsewhere 0."""
    kept = np.zeros_like(x_TF)
    for row, values in zip(kept, x_TF, strict=True):
        at = np.argsort(-values, kind="stable")[:k]
        row[at] = values[at]
    return kept


def to64(tensors):
    return {name: tensor.double().numpy() for name, tensor in tensors.items()}


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def change_json(path: Path, **changes: object) -> None:
    """Rewrite keys of a JSON file; None takes one out."""
    raw = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}), "utf-8")


# ---- Gemma Scope


def gemma_formula(w):
    def formula(h_TD):
        z_TF = h_TD @ w["W_enc"] + w["b_enc"]
        f_TF = (z_TF > w["threshold"]) * relu(z_TF)
        return f_TF, f_TF @ w["W_dec"] + w["b_dec"]

    return formula


def gemma_weights(seed: int = 0, d: int = D_MODEL, f: int = D_SAE) -> dict[str, torch.Tensor]:
    random = Random(seed)
    return {
        "W_dec": random(f, d, scale=d**-0.5),
        "W_enc": random(d, f, scale=d**-0.5),
        "b_dec": random(d, scale=0.5),
        "b_enc": random(f, scale=0.3),
        "threshold": random.uniform(f, low=0.2, high=0.8),
    }


def write_gemma_scope(folder, seed: int = 0):
    """One archive of float32 arrays."""
    weights = gemma_weights(seed)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in weights.items()})
    return gemma_formula(to64(weights))


def write_gemma_scope_2(folder, seed: int = 0, config: object = "whole"):
    """Lower-case names; `config` None leaves config.json out."""
    weights = gemma_weights(seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name.lower(): tensor for name, tensor in weights.items()}, folder / "params.safetensors")
    if config == "whole":
        config = {
            "architecture": "jump_relu",
            "model_name": "gemma-v3-4b-it",
            "hf_hook_point_in": "model.layers.17.output",
            "width": D_SAE,
            "type": "sae",
        }
    if config is not None:
        write_json(folder / "config.json", config)
    return gemma_formula(to64(weights))


# ---- Llama Scope


def write_llama_scope(folder, seed: int = 0, norm_in: float = 6.3125, **changes):
    """Matrices as torch's Linear keeps them; `changes` of hyperparams.json."""
    random = Random(seed)
    weights = {
        "encoder.weight": random(D_SAE, D_MODEL, scale=D_MODEL**-0.5),
        "encoder.bias": random(D_SAE, scale=0.3),
        "decoder.weight": random(D_MODEL, D_SAE, scale=0.4),
        "decoder.bias": random(D_MODEL, scale=0.3),
    }
    config = {
        "hook_point_in": "blocks.8.hook_resid_post",
        "hook_point_out": "blocks.8.hook_resid_post",
        "d_model": D_MODEL,
        "d_sae": D_SAE,
        "use_decoder_bias": True,
        "use_glu_encoder": False,
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.6,
        "apply_decoder_bias_to_pre_encoder": False,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": norm_in, "out": norm_in},
        "sparsity_include_decoder_norm": False,
        "top_k": 5,
    } | changes
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "checkpoints" / "final.safetensors")
    write_json(folder / "hyperparams.json", config)
    return llama_formula(to64(weights), config)


R1_HOOK = "blocks.8.hook_resid_post"


def write_llama_scope_r1(folder, seed: int = 0, norm: float | None = 6.3125, include: bool = False, **changes):
    """The newer files: a threshold a feature, in the unit of scaled vectors, and the norm among the tensors."""
    random = Random(seed)
    weights = linear_pair(random) | {
        "decoder.bias": random(D_MODEL, scale=0.3),
        "log_jumprelu_threshold": random.uniform(D_SAE, low=0.3, high=1.2).log(),
    }
    config = {
        "sae_type": "sae",
        "hook_point_in": R1_HOOK,
        "hook_point_out": R1_HOOK,
        "d_model": D_MODEL,
        "expansion_factor": D_SAE / D_MODEL,
        "use_decoder_bias": True,
        "act_fn": "jumprelu",
        "apply_decoder_bias_to_pre_encoder": False,
        "norm_activation": "dataset-wise",
        "sparsity_include_decoder_norm": include,
        "top_k": 5,
    } | changes
    w = to64(weights)
    norms = {} if norm is None else {f"dataset_average_activation_norm.{R1_HOOK}": torch.tensor(norm)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights | norms, folder / "sae_weights.safetensors")
    write_json(folder / "config.json", config)
    s = 1.0 if norm is None else D_MODEL**0.5 / norm

    def formula(h_TD):
        z_TF = s * h_TD @ w["encoder.weight"].T + w["encoder.bias"]
        scores_TF = z_TF * np.linalg.norm(w["decoder.weight"], axis=0) if include else z_TF
        f_TF = z_TF * (scores_TF > np.exp(w["log_jumprelu_threshold"]))
        return f_TF, (f_TF @ w["decoder.weight"].T + w["decoder.bias"]) / s

    return formula


def llama_formula(w, config):
    """As the library prepares a SAE for use: parameters freed of the scale, then decoder rows of norm 1 if asked.

    The activations it gives are those of vectors as they are; the SAE's own, which a jumprelu one of ours keeps, are
    s times as large and not multiplied by the norms. The active sets are the same.
    """
    wise = config["norm_activation"]
    d, norms = config["d_model"], np.linalg.norm(w["decoder.weight"], axis=0)
    include = config.get("sparsity_include_decoder_norm", True)

    def formula(h_TD):
        if wise == "token-wise":  # nothing to free: vectors are scaled and scaled back
            s, x_TD = 1.0, h_TD * d**0.5 / np.linalg.norm(h_TD, axis=1, keepdims=True)
        else:
            s, x_TD = (
                (d**0.5 / config["dataset_average_activation_norm"]["in"] if wise == "dataset-wise" else 1.0),
                h_TD,
            )
        b_enc, b_dec = w["encoder.bias"] / s, w["decoder.bias"] / s
        unit = norms if include else np.ones_like(norms)
        x_TD = x_TD - b_dec if config["apply_decoder_bias_to_pre_encoder"] else x_TD
        z_TF = (x_TD @ w["encoder.weight"].T + b_enc) * unit
        if config["act_fn"] == "jumprelu":
            f_TF = z_TF * (z_TF > config["jump_relu_threshold"])
        else:
            f_TF = relu(keep_top(z_TF, config["top_k"]) if config["act_fn"] == "topk" else z_TF)
        h_hat_TD = (f_TF / unit) @ w["decoder.weight"].T + b_dec
        if wise == "token-wise":
            h_hat_TD = h_hat_TD * np.linalg.norm(h_TD, axis=1, keepdims=True) / d**0.5
        return (f_TF if config["act_fn"] == "topk" and include else f_TF / unit * s), h_hat_TD

    return formula


# ---- dictionary_learning

CLASSES = (
    "AutoEncoder",
    "AutoEncoderNew",
    "GatedAutoEncoder",
    "JumpReluAutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
)


def linear_pair(random, bias: bool = True):
    state = {
        "encoder.weight": random(D_SAE, D_MODEL, scale=D_MODEL**-0.5),
        "decoder.weight": random(D_MODEL, D_SAE, scale=0.4),
    }
    return state | ({"encoder.bias": random(D_SAE, scale=0.3)} if bias else {})


def dictionary_state(kind: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """The state dict that the class of this name saves."""
    random = Random(seed)
    if kind == "AutoEncoder":
        return {"bias": random(D_MODEL, scale=0.5)} | linear_pair(random)
    if kind == "AutoEncoderNew":
        return linear_pair(random) | {"decoder.bias": random(D_MODEL, scale=0.5)}
    if kind == "GatedAutoEncoder":
        biases = {"decoder_bias": random(D_MODEL, scale=0.5)}
        biases |= {name: random(D_SAE, scale=0.3) for name in ("r_mag", "gate_bias", "mag_bias")}
        return biases | linear_pair(random, bias=False)
    tail = {"k": torch.tensor(5, dtype=torch.int32), "threshold": torch.tensor(0.45)}
    if kind in ("AutoEncoderTopK", "BatchTopKSAE"):
        return {"b_dec": random(D_MODEL, scale=0.5)} | tail | linear_pair(random)
    state = {
        "W_enc": random(D_MODEL, D_SAE, scale=D_MODEL**-0.5),
        "b_enc": random(D_SAE, scale=0.3),
        "W_dec": random(D_SAE, D_MODEL, scale=0.4),
        "b_dec": random(D_MODEL, scale=0.5),
    }
    if kind == "JumpReluAutoEncoder":
        return state | {"threshold": random.uniform(D_SAE, low=0.0, high=0.8)}
    return state | tail | {"group_sizes": torch.tensor([D_SAE // 2, D_SAE - D_SAE // 2])}


def write_dictionary(folder, kind: str = "AutoEncoderTopK", seed: int = 0, **trainer):
    """ae.pt and the part of config.json that says what is in it."""
    state = dictionary_state(kind, seed)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(OrderedDict(state), folder / "ae.pt")
    about = {
        "dict_class": kind,
        "trainer_class": "Trainer",
        "activation_dim": D_MODEL,
        "dict_size": D_SAE,
        "layer": 8,
        "lm_name": "EleutherAI/pythia-70m-deduped",
        "submodule_name": "resid_post_layer_8",
    }
    if "k" in state:
        about["k"] = 5
    write_json(folder / "config.json", {"trainer": about | trainer, "buffer": {"ctx_len": 128, "d_submodule": D_MODEL}})
    return dictionary_formula(kind, to64(state))


def dictionary_formula(kind: str, w):
    """encode and decode of the class as `load_dictionary` returns it."""

    def formula(h_TD):
        if kind == "AutoEncoder":  # from_pretrained gives the decoder's columns norm 1, the encoder their norms
            norms = np.linalg.norm(w["decoder.weight"], axis=0)
            f_TF = relu((h_TD - w["bias"]) @ (w["encoder.weight"] * norms[:, None]).T + w["encoder.bias"] * norms)
            return f_TF, f_TF @ (w["decoder.weight"] / norms).T + w["bias"]
        if kind == "AutoEncoderNew":
            f_TF = relu(h_TD @ w["encoder.weight"].T + w["encoder.bias"])
            return f_TF, f_TF @ w["decoder.weight"].T + w["decoder.bias"]
        if kind == "GatedAutoEncoder":
            x_TF = (h_TD - w["decoder_bias"]) @ w["encoder.weight"].T
            f_TF = (x_TF + w["gate_bias"] > 0) * relu(np.exp(w["r_mag"]) * x_TF + w["mag_bias"])
            return f_TF, f_TF @ w["decoder.weight"].T + w["decoder_bias"]
        if kind == "JumpReluAutoEncoder":
            z_TF = h_TD @ w["W_enc"] + w["b_enc"]
            f_TF = relu(z_TF * (z_TF > w["threshold"]))
            return f_TF, f_TF @ w["W_dec"] + w["b_dec"]
        w_enc_FD = w["encoder.weight"] if "encoder.weight" in w else w["W_enc"].T
        w_dec_FD = w["decoder.weight"].T if "decoder.weight" in w else w["W_dec"]
        f_TF = relu((h_TD - w["b_dec"]) @ w_enc_FD.T + (w["encoder.bias"] if "encoder.bias" in w else w["b_enc"]))
        f_TF = keep_top(f_TF, int(w["k"])) if kind == "AutoEncoderTopK" else f_TF * (f_TF > w["threshold"])
        return f_TF, f_TF @ w_dec_FD + w["b_dec"]

    return formula


# ---- sparsify


def keep_group_max(x_TF, k):
    """The largest of each of k groups of neighbours in each row, elsewhere 0."""
    kept = np.zeros_like(x_TF)
    for row, values in zip(kept, x_TF, strict=True):
        for group in np.split(np.arange(len(values)), k):
            at = group[np.argmax(values[group])]
            row[at] = values[at]
    return kept


def write_sparsify(folder, seed: int = 0, k: int = 5, dtype=torch.float32, **changes):
    """A TopK or groupmax SAE; W_dec lies as the encoder's weight does."""
    random = Random(seed)
    state = {
        "encoder.weight": random(D_SAE, D_MODEL, scale=D_MODEL**-0.5).to(dtype),
        "encoder.bias": random(D_SAE, scale=0.3).to(dtype),
        "W_dec": random(D_SAE, D_MODEL, scale=0.4).to(dtype),
        "b_dec": random(D_MODEL, scale=0.5).to(dtype),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "sae.safetensors")
    config = {
        "activation": "topk",
        "expansion_factor": 32,
        "normalize_decoder": True,
        "num_latents": D_SAE,
        "k": k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": D_MODEL,
    } | changes
    write_json(folder / "cfg.json", config)
    w = to64(state)

    def formula(h_TD):
        keep = keep_group_max if config["activation"] == "groupmax" else keep_top
        f_TF = keep(relu((h_TD - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]), k)
        return f_TF, f_TF @ w["W_dec"] + w["b_dec"]

    return formula


# ---- SAEs that are one pickled file each

QWEN_NAME = "SAE-Res-Qwen3-1.7B-Base-W1K-L0_5"
"""A repository's name, which alone says that k is 5."""

GOODFIRE_FILE = "Llama-3.1-8B-Instruct-SAE-l19.pth"

ATTN_FILE = "gpt2-small_L5_Hcat_z_v9.pt"


def save_pickled(folder, file, state):
    """A state dict in a folder that may not be there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / file)
    return to64(state)


def relu_formula(w_enc_DF, w_dec_FD, b_enc_F, b_dec_D, subtracted=0.0):
    """relu((h - subtracted) W_enc + b_enc), and its decoder."""

    def formula(h_TD):
        f_TF = relu((h_TD - subtracted) @ w_enc_DF + b_enc_F)
        return f_TF, f_TF @ w_dec_FD + b_dec_D

    return formula


def write_qwen_scope(folder, seed: int = 0, k: int = 5, file="layer8.sae.pt", f: int | None = None):
    """TopK; W_enc as (d_sae, d_in), W_dec as (d_in, d_sae)."""
    random, f = Random(seed), f or D_SAE
    state = {
        "W_enc": random(f, D_MODEL, scale=D_MODEL**-0.5),
        "W_dec": random(D_MODEL, f, scale=0.4),
        "b_enc": random(f, scale=0.3),
        "b_dec": random(D_MODEL, scale=0.5),
    }
    w = save_pickled(folder, file, state)

    def formula(h_TD):
        f_TF = relu(keep_top(h_TD @ w["W_enc"].T + w["b_enc"], k))
        return f_TF, f_TF @ w["W_dec"].T + w["b_dec"]

    return formula


def write_goodfire(folder, seed: int = 0, file=GOODFIRE_FILE, suffix="_linear"):
    """Two torch Linears; without the suffix, qresearch's."""
    state = linear_pair(Random(seed)) | {"decoder.bias": Random(seed + 1)(D_MODEL, scale=0.5)}
    w = to64(state)
    save_pickled(folder, file, {name.replace(".", f"{suffix}."): tensor for name, tensor in state.items()})
    return relu_formula(w["encoder.weight"].T, w["decoder.weight"].T, w["encoder.bias"], w["decoder.bias"])


def write_attn_saes(folder, seed: int = 0, file=ATTN_FILE, **changes):
    """W_enc as (d_in, d_sae), and a configuration beside the weights."""
    w = gemma_weights(seed)
    w = save_pickled(folder, file, {name: w[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec")})
    about = {"act_name": "blocks.5.attn.hook_z", "act_size": D_MODEL, "dict_size": D_SAE, "model_name": "gpt2-small"}
    write_json(folder / f"{file.removesuffix('.pt')}_cfg.json", about | changes)
    return relu_formula(w["W_enc"], w["W_dec"], w["b_enc"], w["b_dec"], subtracted=w["b_dec"])

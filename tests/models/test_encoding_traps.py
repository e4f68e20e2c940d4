"""What other loaders get wrong about encoders, and what half precision may cost."""

import foreign
import numpy as np
import pytest
import torch
from foreign import Random, assert_agrees, assert_same, dense, to64, vectors

from engine.models import sae as sae_module
from engine.models.sae import SaeConfig, SparseAutoencoder

D, F, K = 64, 1500, 32

KINDS = ("standard", "jumprelu", "topk", "topk rescaled", "gated")

HALVES = (torch.bfloat16, torch.float16)


def make(kind, normalisation="none", apply_b_dec_to_input=False, seed=0, d=D, f=F, **changes):
    """A random SAE in memory and its weights; about one feature in twenty fires."""
    random = Random(seed)
    encoder = kind.removesuffix(" rescaled")
    weights = {
        "W_enc": random(d, f, scale=d**-0.5),
        "W_dec": random(f, d, scale=0.3),
        "b_enc": random(f, scale=0.3, mean=0.0 if encoder == "topk" else -1.5),
        "b_dec": random(d, scale=0.3),
        "threshold": random.uniform(f, low=0.0, high=0.5),
        "b_gate": random(f, scale=0.3, mean=-1.5),
        "b_mag": random(f, scale=0.3),
        "r_mag": random(f, scale=0.3),
    } | changes
    config = SaeConfig(
        source="random",
        encoder=encoder,
        normalisation=normalisation,
        apply_b_dec_to_input=apply_b_dec_to_input,
        hook="",
        model="",
        k=K if encoder == "topk" else None,
        rescale_acts_by_decoder_norm=kind.endswith("rescaled"),
    )
    return SparseAutoencoder(config, weights), weights


def formula_of(kind, weights):
    """Activations and reconstruction in float64, of vectors that are not normalised."""
    w = to64(weights)

    def formula(x_TD):
        x_TD = np.asarray(x_TD, dtype=np.float64)
        norms = np.linalg.norm(w["W_dec"], axis=1) if kind == "topk rescaled" else 1.0
        z_TF = (x_TD @ w["W_enc"] + w["b_enc"]) * norms
        if kind == "gated":
            z_TF = x_TD @ w["W_enc"]
            f_TF = (z_TF + w["b_gate"] > 0) * foreign.relu(x_TD @ (w["W_enc"] * np.exp(w["r_mag"])) + w["b_mag"])
        elif kind == "standard":
            f_TF = foreign.relu(z_TF)
        elif kind == "jumprelu":
            f_TF = foreign.relu(z_TF) * (z_TF > w["threshold"])
        else:
            f_TF = foreign.relu(foreign.keep_top(z_TF, K))
        return f_TF, f_TF / norms @ w["W_dec"] + w["b_dec"]

    return formula


@pytest.mark.parametrize("kind", KINDS)
def test_every_encoder_is_its_formula_in_blocks_that_end_unevenly(kind, monkeypatch):
    monkeypatch.setattr(sae_module, "FEATURES_PER_BLOCK", 700)
    monkeypatch.setattr(sae_module, "TOKENS_PER_BLOCK", 10)
    sae, weights = make(kind)
    assert_agrees(sae, formula_of(kind, weights))


def test_a_topk_encoder_takes_the_largest_first_and_then_what_is_above_zero():
    sae, _ = make("topk", b_enc=torch.full((F,), -100.0))
    sae.b_enc_F[:3] = 100.0
    assert (dense(sae, vectors(d=D)) != 0).sum(1).tolist() == [3] * 23


def test_a_topk_encoder_rescaled_by_its_decoder_chooses_others_than_one_that_is_not():
    (plain, _), (rescaled, _) = make("topk"), make("topk rescaled")
    plain_TF, rescaled_TF = dense(plain, vectors(d=D)), dense(rescaled, vectors(d=D))
    assert ((plain_TF > 0) != (rescaled_TF > 0)).any(1).all()


def test_an_edit_of_a_rescaled_feature_adds_what_its_decoding_adds():
    sae, _ = make("topk rescaled")
    h_TD = vectors(d=D)
    columns = sae.columns(range(F))
    f_TK = sae.encode_features(sae.normalise(h_TD).x_TD, columns)
    torch.testing.assert_close(f_TK @ columns.w_dec_KD + sae.b_dec_D, sae.reconstruct(h_TD)[0], rtol=1e-4, atol=1e-4)


def test_a_rescaled_feature_without_a_decoder_row_is_silent_not_nan():
    sae, weights = make("topk rescaled")
    weights["W_dec"][7] = 0
    sae, _ = make("topk rescaled", **weights)
    assert torch.isfinite(sae.reconstruct(vectors(d=D))[0]).all()
    assert torch.isfinite(sae.columns([7]).w_dec_KD).all()


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_a_threshold_is_compared_in_float32(dtype):
    """By less than half precision can tell, three features are below, at and above their threshold."""
    threshold = torch.full((3,), 1.003)
    b_enc = threshold + torch.tensor([-1e-5, 0.0, 1e-5])
    sae, _ = make(
        "jumprelu",
        d=4,
        f=3,
        W_enc=torch.zeros(4, 3, dtype=dtype),
        W_dec=torch.zeros(3, 4, dtype=dtype),
        b_enc=b_enc,
        threshold=threshold,
    )
    assert (dense(sae, vectors(3, 4).to(dtype)) > 0).tolist() == [[False, False, True]] * 3
    half, _ = make("jumprelu", threshold=torch.full((F,), 0.3).to(torch.bfloat16))
    assert half.threshold_F.dtype == torch.float32


def test_a_gate_exactly_at_zero_is_closed():
    zeros = torch.zeros(F)
    sae, _ = make("gated", W_enc=torch.zeros(D, F), b_gate=zeros, b_mag=zeros + 1, r_mag=zeros)
    assert (dense(sae, vectors(d=D)) == 0).all()


def test_layer_norm_divides_by_std_and_epsilon_and_is_undone_with_std_alone():
    """Vectors as small as the epsilon: here the two differ by half."""
    sae, weights = make("standard", "layer_norm")
    h_TD = 1e-5 * vectors(d=D, seed=3)
    h = h_TD.double().numpy()
    mu, std = h.mean(1, keepdims=True), h.std(1, ddof=1, keepdims=True)
    f_TF, x_hat_TD = formula_of("standard", weights)((h - mu) / (std + 1e-5))
    assert_same(dense(sae, h_TD), f_TF)
    expected = x_hat_TD * std + mu
    found = sae.reconstruct(h_TD)[0].double().numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(x_hat_TD * (std + 1e-5) + mu - expected).max() > 0.1 * np.abs(expected).max()


# ---- half precision


def halved(dtype, kind, normalisation, seed):
    """Activations of the same vectors, weights in half precision: multiplied in float32, and in half."""
    _, weights = make(kind, seed=seed)
    weights = {name: tensor.to(dtype) if name.startswith("W_") else tensor for name, tensor in weights.items()}
    sae, _ = make(kind, normalisation, seed=seed, **weights)
    h_TD = vectors(100, D, seed=seed).to(dtype)
    return dense(sae, h_TD.float()), dense(sae, h_TD)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("normalisation", ["none", "constant_norm_rescale", "layer_norm"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_finds_the_features_that_float32_does(kind, normalisation, dtype):
    for seed in range(3):
        exact_TF, half_TF = halved(dtype, kind, normalisation, seed)
        both, either = ((exact_TF > 0) & (half_TF > 0)).sum(), ((exact_TF > 0) | (half_TF > 0)).sum()
        assert both / either > 0.98
        # the input's rounding and the product's, each of half a unit in the last place of the token's largest
        largest_T1 = exact_TF.max(1, keepdim=True).values.clamp(min=1.0)
        on = (exact_TF > 0) & (half_TF > 0)
        assert ((exact_TF - half_TF).abs() / largest_T1)[on].max() < 4 * torch.finfo(dtype).eps
        assert half_TF.dtype == torch.float32


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", ["topk", "topk rescaled"])
def test_half_precision_chooses_exactly_k(kind, dtype):
    exact_TF, half_TF = halved(dtype, kind, "constant_norm_rescale", 0)
    assert (half_TF > 0).sum(1).tolist() == [K] * 100
    assert torch.equal(exact_TF, half_TF)  # of half vectors, a topk encoder multiplies in float32


def test_bfloat16_vectors_are_multiplied_in_it_and_others_in_float32():
    exact_TF, half_TF = halved(torch.bfloat16, "jumprelu", "none", 0)
    assert not torch.equal(exact_TF, half_TF)
    exact_TF, half_TF = halved(torch.float16, "jumprelu", "none", 0)
    assert torch.equal(exact_TF, half_TF)  # its products could overflow

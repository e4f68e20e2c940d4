"""Encoding and decoding against float64 numpy, for every kind the loader reads."""

import numpy as np
import plain
import pytest
import torch
from tiny import D_MODEL, D_SAE, sae_weights, write_sae

from engine.loading.formats import load_sae
from engine.models import sae as sae_module
from engine.records.errors import EditError, SaeError

ENCODERS = ("standard", "jumprelu")

NORMALISATIONS = ("none", "constant_norm_rescale", "layer_norm")

KINDS = [(e, n, b) for e in ENCODERS for n in NORMALISATIONS for b in (False, True)]


def vectors(tokens=23):
    """Vectors of very different lengths, with a mean that is not 0."""
    generator = torch.Generator().manual_seed(7)
    lengths = torch.logspace(-1, 1, tokens)[:, None]
    return lengths * (torch.randn(tokens, D_MODEL, generator=generator) + 0.5)


def all_acts(sae, h_TD):
    found = torch.full((len(h_TD), sae.d_sae), torch.nan)
    for active in sae.encode(h_TD):
        found[active.tokens, active.features] = 0
        found[active.token_N, active.feature_N] = active.value_N
    return found


@pytest.mark.parametrize(("encoder", "normalisation", "b_dec"), KINDS)
def test_encode_equals_the_plain_formula(tmp_path, encoder, normalisation, b_dec):
    sae = load_sae(write_sae(tmp_path, encoder, normalisation, b_dec))
    expected = plain.encode(vectors(), sae_weights(encoder), normalisation, b_dec)
    assert 0 < (expected > 0).mean() < 0.6
    np.testing.assert_allclose(all_acts(sae, vectors()).numpy(), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("encoder", "normalisation", "b_dec"), KINDS)
def test_reconstruct_equals_the_plain_formula(tmp_path, encoder, normalisation, b_dec):
    sae = load_sae(write_sae(tmp_path, encoder, normalisation, b_dec))
    weights = sae_weights(encoder)
    f_TF = plain.encode(vectors(), weights, normalisation, b_dec)
    h_hat_TD, l0_T = sae.reconstruct(vectors())
    np.testing.assert_allclose(h_hat_TD.numpy(), plain.decode(f_TF, vectors(), weights, normalisation), atol=2e-4)
    assert l0_T.tolist() == (f_TF > 0).sum(1).tolist()


@pytest.mark.parametrize(("encoder", "normalisation", "b_dec"), KINDS)
def test_chosen_features_encode_as_in_the_whole(tmp_path, encoder, normalisation, b_dec, monkeypatch):
    monkeypatch.setattr(sae_module, "FEATURES_PER_BLOCK", 7)
    monkeypatch.setattr(sae_module, "TOKENS_PER_BLOCK", 5)
    sae = load_sae(write_sae(tmp_path, encoder, normalisation, b_dec))
    chosen = [39, 0, 17]
    for features in (list(range(D_SAE)), chosen):
        some = sae.encode_features(sae.normalise(vectors()).x_TD, sae.columns(features))
        torch.testing.assert_close(some, all_acts(sae, vectors())[:, features], rtol=1e-5, atol=1e-5)


def test_the_blocks_cover_every_token_and_feature_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sae_module, "FEATURES_PER_BLOCK", 7)
    monkeypatch.setattr(sae_module, "TOKENS_PER_BLOCK", 5)
    sae = load_sae(write_sae(tmp_path))
    times = torch.zeros(23, D_SAE)
    for active in sae.encode(vectors()):
        assert times[active.tokens, active.features].shape[0] <= 5
        assert times[active.tokens, active.features].shape[1] <= 7
        times[active.tokens, active.features] += 1
    assert (times == 1).all()


def test_a_feature_exactly_at_its_threshold_is_silent(tmp_path):
    weights = sae_weights()
    weights["W_enc"] = torch.zeros(D_MODEL, D_SAE)
    weights["b_enc"] = weights["threshold"].clone()
    sae = load_sae(write_sae(tmp_path, weights=weights, normalisation="none"))
    assert (all_acts(sae, vectors()) == 0).all()


def test_a_negative_threshold_does_not_let_negative_activations_through(tmp_path):
    weights = sae_weights() | {"threshold": torch.full((D_SAE,), -1.0)}
    sae = load_sae(write_sae(tmp_path, weights=weights))
    assert (all_acts(sae, vectors()) >= 0).all()
    np.testing.assert_allclose(all_acts(sae, vectors()).numpy(), plain.encode(vectors(), weights), rtol=1e-4, atol=2e-5)


def test_leading_dimensions_do_not_matter(tmp_path):
    sae = load_sae(write_sae(tmp_path, normalisation="layer_norm"))
    h_BTD = vectors(24).reshape(2, 12, D_MODEL)
    columns = sae.columns([3, 4, 5])
    batched = sae.encode_features(sae.normalise(h_BTD).x_TD, columns)
    flat = sae.encode_features(sae.normalise(vectors(24)).x_TD, columns)
    torch.testing.assert_close(batched.reshape(24, 3), flat)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_a_zero_vector_encodes_to_finite_numbers(tmp_path, normalisation):
    sae = load_sae(write_sae(tmp_path, normalisation=normalisation))
    h_hat_TD, _ = sae.reconstruct(torch.zeros(2, D_MODEL))
    assert torch.isfinite(h_hat_TD).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_encode_in_float32(tmp_path, dtype):
    weights = {k: v.to(dtype).float() if k.startswith("W_") else v for k, v in sae_weights().items()}
    sae = load_sae(write_sae(tmp_path, dtype=dtype))
    assert sae.w_enc_DF.dtype == dtype
    acts = all_acts(sae, vectors())
    assert acts.dtype == torch.float32
    np.testing.assert_allclose(acts.numpy(), plain.encode(vectors(), weights), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("feature", [-1, D_SAE, 10**9])
def test_a_feature_the_sae_does_not_have_is_an_error(tmp_path, feature):
    sae = load_sae(write_sae(tmp_path))
    with pytest.raises(EditError, match=f"no feature {feature}: this SAE has features 0 to {D_SAE - 1}"):
        sae.columns([0, feature])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("W_dec", (D_MODEL, D_SAE)),
        ("b_enc", (D_SAE + 1,)),
        ("b_dec", (D_SAE,)),
        ("threshold", (1,)),
        ("b_enc", (1, D_SAE)),
        ("W_enc", (D_MODEL * D_SAE,)),
        ("W_enc", (1, D_MODEL, D_SAE)),
    ],
)
def test_tensors_that_do_not_fit_each_other_are_named(tmp_path, name, shape):
    weights = sae_weights() | {name: torch.zeros(shape)}
    with pytest.raises(SaeError, match=r"shape|dimensions") as caught:
        load_sae(write_sae(tmp_path, weights=weights))
    assert name in caught.value.message

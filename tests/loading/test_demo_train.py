"""The demo's training step: hand-written gradients, thresholds, and what is saved is what was trained."""

import gzip
import json

import pytest
import torch

from engine.loading.demo.making import train
from engine.loading.formats import load_sae


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return train.Weights.start(torch.randn(12), 40, seed=0)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("bias", [True, False])
def test_hand_written_gradients_equal_autograd(weights, bias):
    x_ND, target_ND = torch.randn(30, 12), torch.randn(30, 12)
    parameters = [p.clone().requires_grad_() for p in weights.all()]
    enc, dec, b_enc, b_dec = parameters
    pre = x_ND @ enc.T + b_enc
    threshold = train.batch_threshold(pre.detach(), 5)
    decoded = (pre * (pre > threshold)) @ dec + (b_dec if bias else 0)
    (decoded - target_ND).square().mean().backward()
    entries = train.entries_above(pre.detach(), threshold)
    gradients, error = train.gradients_of(weights, x_ND, target_ND, entries, bias)
    assert torch.allclose(error, target_ND - decoded.detach(), atol=1e-6)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert torch.allclose(gradient, expected, atol=1e-6)


def test_a_batchs_threshold_lets_k_features_through_per_row():
    pre = torch.randn(100, 200)
    assert len(train.entries_above(pre, train.batch_threshold(pre, 7))[0]) == 700


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_training_explains_sparse_data():
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(48, 16), dim=1)
    codes = torch.relu(torch.randn(6000, 48) - 1.5) * 3
    data = (codes @ directions).half().numpy()
    weights = train.train(data, width=64, k=6, steps=150, batch=256, lr=3e-3, seed=0)
    held_out = torch.from_numpy(data[:1000]).float()
    threshold = train.calibrate(weights, held_out, 6)
    found = train.quality(weights, held_out, threshold)
    assert found["l0"] == pytest.approx(6, abs=0.1)
    assert found["variance_explained"] > 0.7


def test_what_is_saved_encodes_as_what_was_trained(weights, tmp_path):
    train.save(weights, 0.4, layer=3, folder=tmp_path, notes={"k": 5})
    sae = load_sae(tmp_path)
    assert (sae.config.encoder, sae.config.normalisation) == ("jumprelu", "constant_norm_rescale")
    assert sae.config.hook == "blocks.3.hook_resid_pre"
    h_TD = torch.randn(9, 12)
    x_TD = h_TD * 12**0.5 / h_TD.norm(dim=1, keepdim=True)
    pre = x_TD @ weights.enc_FD.T + weights.b_enc_F
    acts_TF = torch.zeros(9, sae.d_sae)
    for active in sae.encode(h_TD):
        acts_TF[active.token_N, active.feature_N] = active.value_N
    assert torch.allclose(acts_TF, pre * (pre > 0.4), atol=0.01)  # saved in float16


def test_samples_get_their_leading_token_and_a_cut_off_file_is_read_as_far_as_it_goes(tmp_path, capsys):
    whole = tmp_path / "whole.jsonl.gz"
    with gzip.open(whole, "wt") as file:
        file.writelines(json.dumps(ids) + "\n" for ids in ([1, 5, 6], [7, 8]))
    assert train.read_samples([whole], bos=1) == [[1, 5, 6], [1, 7, 8]]
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(whole.read_bytes()[:-6])
    train.read_samples([cut], bos=1)
    assert "cut off" in capsys.readouterr().err

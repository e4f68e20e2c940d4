"""A sparse autoencoder: encode in blocks, columns of chosen features, decode.

Per token, with x the normalised residual-stream vector, u the scale and mu the mean the normalisation took away:

    standard   f = relu(x W_enc + b_enc)
    jumprelu   z = x W_enc + b_enc;  f = z if z > threshold and z > 0 else 0
    decode     h = u * (f W_dec + b_dec) + mu

x - b_dec goes into the encoder instead of x where `apply_b_dec_to_input` says so. A BatchTopK SAE uses its
saved threshold and is a jumprelu here. Knows nothing about files, prompts or language models.

Shape suffixes: T tokens, D d_model, F features of the SAE (d_sae), K chosen features. Weights keep the dtype of
their file; activations are computed in float32, never as a whole T x F matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from engine.errors import EditError, SaeError

Encoder = Literal["standard", "jumprelu"]
Normalisation = Literal["none", "constant_norm_rescale", "layer_norm"]

FEATURES_PER_BLOCK = 8192
TOKENS_PER_BLOCK = 1024


@dataclass(frozen=True)
class SaeConfig:
    """What a loader must find out about a SAE. `hook` is "" where the files do not name it."""

    source: str
    encoder: Encoder
    normalisation: Normalisation
    apply_b_dec_to_input: bool
    hook: str
    model: str
    prepend_bos: bool | None = None
    """Whether training put a leading special token before the text; None where the files do not say."""


@dataclass(frozen=True)
class Normalised:
    """Encoder input x_TD in float32 with the scale u_T1 and mean mu_T1 that undo its normalisation."""

    x_TD: torch.Tensor
    u_T1: torch.Tensor
    mu_T1: torch.Tensor


@dataclass(frozen=True)
class FeatureColumns:
    """The float32 weights of K chosen features, all that an edit needs."""

    features: tuple[int, ...]
    w_enc_DK: torch.Tensor
    bias_K: torch.Tensor
    threshold_K: torch.Tensor
    w_dec_KD: torch.Tensor


class SparseAutoencoder:
    """Weights plus equations; see the module docstring. Raises SaeError when shapes do not fit each other."""

    def __init__(self, config: SaeConfig, weights: dict[str, torch.Tensor]) -> None:
        self.config = config
        self.w_enc_DF = weights["W_enc"]
        self.w_dec_FD = weights["W_dec"]
        self.b_enc_F = weights["b_enc"].float()
        self.b_dec_D = weights["b_dec"].float()
        if self.w_enc_DF.ndim != 2:
            raise SaeError(f"{config.source}: W_enc has shape {tuple(self.w_enc_DF.shape)}, not two dimensions.")
        self.d_model, self.d_sae = self.w_enc_DF.shape
        threshold = weights.get("threshold")
        self.threshold_F = torch.zeros_like(self.b_enc_F) if threshold is None else threshold.float().clamp(min=0)
        self._check_shapes()
        if config.apply_b_dec_to_input:  # folded into the bias once: (x - b_dec) W = x W - b_dec W
            self.b_enc_F = self.b_enc_F - self._times_w_enc(self.b_dec_D)

    def _check_shapes(self) -> None:
        expected = {
            "W_dec": (self.w_dec_FD, (self.d_sae, self.d_model)),
            "b_enc": (self.b_enc_F, (self.d_sae,)),
            "b_dec": (self.b_dec_D, (self.d_model,)),
            "threshold": (self.threshold_F, (self.d_sae,)),
        }
        for name, (tensor, shape) in expected.items():
            if tuple(tensor.shape) != shape:
                raise SaeError(
                    f"{self.config.source}: {name} has shape {tuple(tensor.shape)}, but W_enc "
                    f"{tuple(self.w_enc_DF.shape)} asks for {shape}.",
                    "The file is damaged or of another format: download it again.",
                )

    def _times_w_enc(self, vector_D: torch.Tensor) -> torch.Tensor:
        blocks = range(0, self.d_sae, FEATURES_PER_BLOCK)
        return torch.cat([vector_D @ self.w_enc_DF[:, at : at + FEATURES_PER_BLOCK].float() for at in blocks])

    def to(self, device: torch.device) -> SparseAutoencoder:
        """Moves the weights; returns itself."""
        for name in ("w_enc_DF", "w_dec_FD", "b_enc_F", "b_dec_D", "threshold_F"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def normalise(self, h_TD: torch.Tensor) -> Normalised:
        """Puts residual-stream vectors into the SAE's input units."""
        h_TD = h_TD.float()
        ones_T1 = torch.ones_like(h_TD[..., :1])
        if self.config.normalisation == "constant_norm_rescale":
            u_T1 = h_TD.norm(dim=-1, keepdim=True) / self.d_model**0.5
            return Normalised(h_TD / u_T1.clamp(min=1e-12), u_T1, 0 * ones_T1)
        if self.config.normalisation == "layer_norm":
            mu_T1 = h_TD.mean(-1, keepdim=True)
            u_T1 = h_TD.std(-1, keepdim=True) + 1e-5
            return Normalised((h_TD - mu_T1) / u_T1, u_T1, mu_T1)
        return Normalised(h_TD, ones_T1, 0 * ones_T1)

    @staticmethod
    def _activate(z: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        # threshold 0 makes this a plain relu
        return z * (z > threshold)

    def encode_blocks(self, h_TD: torch.Tensor) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Yields (token slice, feature slice, float32 activations) over blocks small enough for memory."""
        for t in range(0, len(h_TD), TOKENS_PER_BLOCK):
            tokens = slice(t, min(t + TOKENS_PER_BLOCK, len(h_TD)))
            x_TD = self.normalise(h_TD[tokens]).x_TD
            for f in range(0, self.d_sae, FEATURES_PER_BLOCK):
                features = slice(f, min(f + FEATURES_PER_BLOCK, self.d_sae))
                z_TF = torch.addmm(self.b_enc_F[features], x_TD, self.w_enc_DF[:, features].float())
                yield tokens, features, self._activate(z_TF, self.threshold_F[features])

    def reconstruct(self, h_TD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns (reconstruction_TD, L0_T): the decoded vectors in h's units and how many features fired."""
        h_hat_TD = torch.empty_like(h_TD, dtype=torch.float32)
        l0_T = torch.zeros(len(h_TD), device=h_TD.device)
        scale = self.normalise(h_TD)
        h_hat_TD[:] = self.b_dec_D
        for tokens, features, acts_TF in self.encode_blocks(h_TD):
            h_hat_TD[tokens] += acts_TF @ self.w_dec_FD[features].float()
            l0_T[tokens] += (acts_TF > 0).sum(-1)
        return h_hat_TD * scale.u_T1 + scale.mu_T1, l0_T

    def columns(self, features: Sequence[int]) -> FeatureColumns:
        """The weights of chosen features in float32. Raises EditError for a number the SAE does not have."""
        for feature in features:
            if not 0 <= feature < self.d_sae:
                raise EditError(
                    f"There is no feature {feature}: this SAE has features 0 to {self.d_sae - 1}.",
                    "Look one up with `saescope rank`.",
                )
        index = torch.tensor(list(features), dtype=torch.long, device=self.w_enc_DF.device)
        return FeatureColumns(
            features=tuple(features),
            w_enc_DK=self.w_enc_DF[:, index].float(),
            bias_K=self.b_enc_F[index],
            threshold_K=self.threshold_F[index],
            w_dec_KD=self.w_dec_FD[index].float(),
        )

    def encode_features(self, x_TD: torch.Tensor, columns: FeatureColumns) -> torch.Tensor:
        """Activations_TK of chosen features from normalised input; any leading dimensions."""
        return self._activate(x_TD @ columns.w_enc_DK + columns.bias_K, columns.threshold_K)

"""A sparse autoencoder: encode block by block into sparse results, columns of chosen features, decode.

Per token, with h the hooked vector (its mean over d_model removed where the SAE was trained on centred ones):

    x = (h - mu) / u  by the normalisation;  x - b_dec instead where `apply_b_dec_to_input` says so
    z = x W_enc + b_enc;  z * norm(W_dec) instead where `rescale_acts_by_decoder_norm` says so
    standard   f = relu(z)
    jumprelu   f = z if z > threshold and z > 0 else 0
    topk       f = relu(z) for the token's k largest z, else 0; with `groups`, for the largest of each of k groups
    gated      f = relu((x W_enc) * e^r_mag + b_mag) if x W_enc + b_gate > 0 else 0   (no b_enc)
    decode     h = u * (f D + b_dec) + mu,  D = W_dec, divided by its rows' norms where activations are rescaled

A BatchTopK SAE uses its saved threshold and is a jumprelu here: what a token activates never depends on its batch.
Knows nothing about files, prompts or language models.

Shape suffixes: T tokens, D d_in, F features of the SAE (d_sae), K chosen features, N activations above zero.
Weights keep the dtype of their file; activations are float32, never held as a T x F matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from engine.records.errors import EditError, SaeError

Encoder = Literal["standard", "jumprelu", "topk", "gated"]

Normalisation = Literal["none", "constant_norm_rescale", "layer_norm", "expected_average_only_in"]

TENSORS: dict[Encoder, tuple[str, ...]] = {
    "standard": ("W_enc", "W_dec", "b_enc", "b_dec"),
    "jumprelu": ("W_enc", "W_dec", "b_enc", "b_dec", "threshold"),
    "topk": ("W_enc", "W_dec", "b_enc", "b_dec"),
    "gated": ("W_enc", "W_dec", "b_gate", "r_mag", "b_mag", "b_dec"),
}
"""The tensors that each encoder needs, by SAELens' names."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

AGAIN = "The file is damaged or of another format: download it again."

FEATURES_PER_BLOCK = 4096

TOKENS_PER_BLOCK = 512


@dataclass(frozen=True)
class SaeConfig:
    """What a loader must find out about a SAE. `hook` and `model` are "" where nothing names them."""

    source: str
    encoder: Encoder
    normalisation: Normalisation
    apply_b_dec_to_input: bool
    hook: str
    model: str
    format: str = ""
    """Name of the format it was read from."""
    prepend_bos: bool | None = None
    """Whether training put a leading special token before the text; None where nothing says."""
    context: int | None = None
    """How many tokens the texts had that it was trained on; None where nothing says."""
    k: int | None = None
    """Of a topk encoder: how many features fire per token at most."""
    groups: bool = False
    """Of a topk encoder: one feature fires of each of k groups of neighbours (sparsify's groupmax)."""
    rescale_acts_by_decoder_norm: bool = False
    scale: float = 1.0
    """For expected_average_only_in: the factor that every vector is multiplied by."""
    centered: bool = False
    """Trained on a residual stream whose mean over d_model is zero (TransformerLens' center_writing_weights)."""
    published_l0: float | None = None
    """Mean number of active features per token, as published."""
    published_variance_explained: float | None = None
    neuronpedia: str = ""
    """Path of its page on Neuronpedia, such as gpt2-small/0-res-jb."""
    notes: tuple[str, ...] = ()
    """What was decided beyond or against the files, in words for the user."""

    def equations(self) -> str:
        """Return all that activations depend on besides weights and vectors; the files alone do not always tell it."""
        shape = (self.encoder, self.normalisation, self.apply_b_dec_to_input, self.k)
        known = (*shape, self.rescale_acts_by_decoder_norm, self.scale, self.centered)
        return repr((*known, "groups") if self.groups else known)


@dataclass(frozen=True)
class Normalised:
    """Encoder input x_TD in float32 with the scale u_T1 and mean mu_T1 that undo its normalisation."""

    x_TD: torch.Tensor
    u_T1: torch.Tensor
    mu_T1: torch.Tensor


@dataclass(frozen=True)
class FeatureColumns:
    """The float32 weights of K chosen features, all that an edit needs; w_dec_KD as it is applied (D above)."""

    features: tuple[int, ...]
    index_K: torch.Tensor
    w_enc_DK: torch.Tensor
    w_dec_KD: torch.Tensor


@dataclass(frozen=True)
class Active:
    """Some of the activations above zero of encoded tokens, in no particular order."""

    token_N: torch.Tensor
    feature_N: torch.Tensor
    value_N: torch.Tensor
    tokens: slice
    """The tokens that this part covers; every pair of a token and a feature is in one part at most."""
    features: slice


class SparseAutoencoder:
    """Weights plus equations; see the module docstring.

    `weights` holds the tensors TENSORS names for the encoder, W_enc as (d_in, d_sae). Raises SaeError when one is
    missing or shapes do not fit each other.
    """

    def __init__(self, config: SaeConfig, weights: dict[str, torch.Tensor]) -> None:
        self.config = config
        check_weights(config, weights)
        self.w_enc_DF = weights["W_enc"]
        self.w_dec_FD = weights["W_dec"]
        self.d_in, self.d_sae = self.w_enc_DF.shape
        device = self.w_enc_DF.device
        self.b_dec_D = weights["b_dec"].float()
        zeros_F = torch.zeros(self.d_sae, device=device)
        gated = config.encoder == "gated"
        # a gated encoder compares and scales the bare product and adds its two biases after that
        self.b_enc_F = zeros_F if gated else weights["b_enc"].float()
        self.threshold_F = weights["threshold"].float().clamp(min=0) if config.encoder == "jumprelu" else zeros_F
        self.b_gate_F = weights["b_gate"].float() if gated else None
        self.gain_F = weights["r_mag"].float().exp() if gated else None
        self.b_mag_F = weights["b_mag"].float() if gated else None
        # norms of the decoder as applied to vectors in the model's own units: an average-norm scale is part of it
        scale = config.scale if config.normalisation == "expected_average_only_in" else 1.0
        self.norm_F = row_norms(self.w_dec_FD) / scale if config.rescale_acts_by_decoder_norm else None

    def to(self, device: torch.device) -> SparseAutoencoder:
        """Move the weights to a device; return the SAE itself."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value.to(device))
        return self

    # ---- encode

    def normalise(self, h_TD: torch.Tensor) -> Normalised:
        """Put hooked vectors into the SAE's input units."""
        x_TD = h_TD.float()
        u_T1 = torch.ones_like(x_TD[..., :1])
        mu_T1 = torch.zeros_like(u_T1)
        kind = self.config.normalisation
        if self.config.centered or kind == "layer_norm":
            mu_T1 = x_TD.mean(-1, keepdim=True)
            x_TD = x_TD - mu_T1
        if kind == "constant_norm_rescale":
            u_T1 = x_TD.norm(dim=-1, keepdim=True) / self.d_in**0.5
            x_TD = x_TD / u_T1.clamp(min=1e-12)
        elif kind == "layer_norm":
            u_T1 = x_TD.std(-1, keepdim=True)
            x_TD = x_TD / (u_T1 + 1e-5)
        elif kind == "expected_average_only_in":
            u_T1 = u_T1 / self.config.scale
            x_TD = x_TD * self.config.scale
        if self.config.apply_b_dec_to_input:
            x_TD = x_TD - self.b_dec_D
        return Normalised(x_TD, u_T1, mu_T1)

    def encode(self, h_TD: torch.Tensor) -> Iterator[Active]:
        """Yield the activations of hooked vectors, in parts small enough for memory.

        Vectors in bfloat16 are multiplied in bfloat16: they are no more precise, and it is several times faster. A few
        features close to their threshold then come out on its other side. All other vectors are multiplied in float32:
        float16 could overflow, and a topk encoder's choice of k needs values that can be told apart.
        """
        half = h_TD.dtype == torch.bfloat16 and self.config.encoder != "topk"
        buffer_DF = None
        if half and self.w_enc_DF.dtype != h_TD.dtype:  # filled block by block: new memory would cost as much again
            buffer_DF = torch.empty_like(self.w_enc_DF[:, :FEATURES_PER_BLOCK], dtype=h_TD.dtype)
        for t in range(0, len(h_TD), TOKENS_PER_BLOCK):
            tokens = slice(t, min(t + TOKENS_PER_BLOCK, len(h_TD)))
            x_TD = self.normalise(h_TD[tokens]).x_TD
            if self.config.encoder == "topk":
                value_Tk, feature_Tk = self.top_k(x_TD)
                token_T1 = torch.arange(t, tokens.stop, device=x_TD.device)[:, None]
                token_Tk = token_T1.expand_as(feature_Tk)
                for features in self.blocks():
                    here = (value_Tk > 0) & (feature_Tk >= features.start) & (feature_Tk < features.stop)
                    yield Active(token_Tk[here], feature_Tk[here], value_Tk[here], tokens, features)
                continue
            x_TD = x_TD.to(h_TD.dtype) if half else x_TD
            for features in self.blocks():
                yield self._encode_block(x_TD, tokens, features, buffer_DF)

    def _encode_block(
        self, x_TD: torch.Tensor, tokens: slice, features: slice, buffer_DF: torch.Tensor | None
    ) -> Active:
        """Return what fires in a block, for every encoder but topk; the dense block is freed on return."""
        z_TF = self.pre_activations(x_TD, features, buffer_DF)
        token_N, feature_N = self._fires(z_TF, features).nonzero(as_tuple=True)
        z_N, feature_N = z_TF[token_N, feature_N], feature_N + features.start
        return Active(token_N + tokens.start, feature_N, self.activate(z_N, feature_N), tokens, features)

    def encode_features(self, x_TD: torch.Tensor, columns: FeatureColumns) -> torch.Tensor:
        """Return float32 activations_TK of chosen features, from normalised input of any leading dimensions."""
        if self.config.encoder == "topk":
            value_Tk, feature_Tk = self.top_k(x_TD.reshape(-1, self.d_in))
            chosen_TkK = feature_Tk[..., None] == columns.index_K
            f_TK = (value_Tk.clamp(min=0)[..., None] * chosen_TkK).sum(-2)
            return f_TK.reshape(*x_TD.shape[:-1], len(columns.features))
        return self.activate(x_TD @ columns.w_enc_DK + self.b_enc_F[columns.index_K], columns.index_K)

    def blocks(self) -> Iterator[slice]:
        """Yield all features, in blocks small enough for a dense matrix."""
        for start in range(0, self.d_sae, FEATURES_PER_BLOCK):
            yield slice(start, min(start + FEATURES_PER_BLOCK, self.d_sae))

    def pre_activations(
        self, x_TD: torch.Tensor, features: slice, buffer_DF: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return x W_enc + b_enc of a block of features, in float32.

        The product is in x's dtype; the weights are cast to it, into the buffer where one is given.
        """
        w_enc_DF = self.w_enc_DF[:, features]
        if buffer_DF is not None:
            w_enc_DF = buffer_DF[:, : w_enc_DF.shape[1]].copy_(w_enc_DF)
        w_enc_DF = w_enc_DF.to(x_TD.dtype)
        if x_TD.dtype == torch.float32:
            return torch.addmm(self.b_enc_F[features], x_TD, w_enc_DF)
        return (x_TD @ w_enc_DF).float().add_(self.b_enc_F[features])

    def _fires(self, z: torch.Tensor, at: slice | torch.Tensor) -> torch.Tensor:
        """Return where f of the features `at` is not zero, from pre-activations; a NaN fires, so that it is seen."""
        if self.b_gate_F is not None and self.gain_F is not None and self.b_mag_F is not None:
            return ~((z + self.b_gate_F[at] <= 0) | (z * self.gain_F[at] + self.b_mag_F[at] <= 0))
        if self.norm_F is not None:
            z = z * self.norm_F[at]
        return ~(z <= self.threshold_F[at])  # a threshold of 0 makes this a plain relu

    def activate(self, z: torch.Tensor, at: slice | torch.Tensor) -> torch.Tensor:
        """Return f of the features `at` from their pre-activations, for every encoder but topk."""
        fires = self._fires(z, at)
        if self.gain_F is not None and self.b_mag_F is not None:
            return (z * self.gain_F[at] + self.b_mag_F[at]) * fires
        return (z if self.norm_F is None else z * self.norm_F[at]) * fires

    def top_k(self, x_TD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the k largest pre-activations of each token and their features, exact, merged block by block."""
        k = self.config.k or self.d_sae
        if self.config.groups:
            return self._group_max(x_TD, self.d_sae // k)
        best_Tk = torch.empty(len(x_TD), 0, device=x_TD.device)
        feature_Tk = torch.empty(len(x_TD), 0, dtype=torch.long, device=x_TD.device)
        for features in self.blocks():
            z_TF = self.pre_activations(x_TD, features)
            if self.norm_F is not None:
                z_TF = z_TF * self.norm_F[features]
            here_Tk, at_Tk = z_TF.topk(min(k, z_TF.shape[-1]), dim=-1, sorted=False)
            best_Tk, order_Tk = torch.cat([best_Tk, here_Tk], 1).topk(
                min(k, best_Tk.shape[1] + here_Tk.shape[1]), dim=-1, sorted=False
            )
            feature_Tk = torch.cat([feature_Tk, at_Tk + features.start], 1).gather(1, order_Tk)
        return best_Tk, feature_Tk

    def _group_max(self, x_TD: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The largest pre-activation of each group of so many neighbours and its feature, block by block of groups."""
        step = max(FEATURES_PER_BLOCK // size, 1) * size
        best, features = [], []
        for start in range(0, self.d_sae, step):
            block = slice(start, min(start + step, self.d_sae))
            z_TF = self.pre_activations(x_TD, block)
            if self.norm_F is not None:
                z_TF = z_TF * self.norm_F[block]
            best_Tk, at_Tk = z_TF.view(len(x_TD), -1, size).max(-1)
            best.append(best_Tk)
            features.append(at_Tk + torch.arange(start, block.stop, size, device=x_TD.device))
        return torch.cat(best, 1), torch.cat(features, 1)

    # ---- decode

    def reconstruct(self, h_TD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (reconstruction_TD, L0_T): decoded vectors in h's units, and how many features fired."""
        sum_TD = self.b_dec_D.repeat(len(h_TD), 1)
        l0_T = torch.zeros(len(h_TD), device=h_TD.device)
        for active in self.encode(h_TD):
            l0_T += torch.bincount(active.token_N, minlength=len(h_TD))
            self.add_decoded(sum_TD, active)
        scale = self.normalise(h_TD)
        return sum_TD * scale.u_T1 + scale.mu_T1, l0_T

    def add_decoded(self, sum_TD: torch.Tensor, active: Active) -> None:
        """Add f D of these activations to sum_TD, whose rows are all the encoded tokens."""
        rows_F, row_N = torch.unique(active.feature_N, return_inverse=True)
        if len(rows_F) == 0:
            return
        value_N = active.value_N if self.norm_F is None else active.value_N / self.norm_F[active.feature_N]
        order_N = active.token_N.argsort(stable=True)
        num_tokens = active.tokens.stop - active.tokens.start
        count_T = torch.bincount(active.token_N - active.tokens.start, minlength=num_tokens)
        start_T = count_T.cumsum(0) - count_T
        # a weighted sum of decoder rows per token, without the dense T x F matrix
        sum_TD[active.tokens] += torch.nn.functional.embedding_bag(
            row_N[order_N],
            self.w_dec_FD[rows_F].float(),
            start_T,
            mode="sum",
            per_sample_weights=value_N[order_N],
        )

    def add_projected(self, sum_F: torch.Tensor, active: Active, g_TD: torch.Tensor) -> None:
        """Add f (g . D) of these activations to sum_F; g_TD has a row for every encoded token."""
        # for all pairs in the part, of which few fire: still faster than gathering the decoder's rows one by one
        slope_TF = g_TD[active.tokens] @ self.w_dec_FD[active.features].to(g_TD.dtype).T
        slope_N = slope_TF[active.token_N - active.tokens.start, active.feature_N - active.features.start]
        value_N = active.value_N if self.norm_F is None else active.value_N / self.norm_F[active.feature_N]
        sum_F.index_add_(0, active.feature_N, (value_N * slope_N).to(sum_F.dtype))

    def decoder_norms(self) -> torch.Tensor:
        """Return ||D||_F in float32, of the decoder as applied."""
        norm_F = row_norms(self.w_dec_FD)
        return norm_F if self.norm_F is None else norm_F / self.norm_F

    def columns(self, features: Sequence[int]) -> FeatureColumns:
        """Return the weights of chosen features in float32. Raises EditError for a feature the SAE does not have."""
        for feature in features:
            if not 0 <= feature < self.d_sae:
                raise EditError(
                    f"There is no feature {feature}: this SAE has features 0 to {self.d_sae - 1}.",
                    "Look one up with `saescope rank`.",
                )
        index_K = torch.tensor(list(features), dtype=torch.long, device=self.w_enc_DF.device)
        w_dec_KD = self.w_dec_FD[index_K].float()
        if self.norm_F is not None:
            w_dec_KD = w_dec_KD / self.norm_F[index_K, None]
        return FeatureColumns(tuple(features), index_K, self.w_enc_DF[:, index_K].float(), w_dec_KD)


def row_norms(w_dec_FD: torch.Tensor) -> torch.Tensor:
    """Return float32 norms_F of the decoder's rows, without a float32 copy of it; never 0, to be divided by."""
    blocks = [w_dec_FD[at : at + FEATURES_PER_BLOCK] for at in range(0, len(w_dec_FD), FEATURES_PER_BLOCK)]
    return torch.cat([block.float().norm(dim=-1) for block in blocks]).clamp(min=1e-8)


def all_finite(weight: torch.Tensor) -> bool:
    """Return whether no number is NaN or infinite: one pass at the memory's speed, without a copy."""
    ordered = weight.T if weight.ndim == 2 and not weight.is_contiguous() else weight  # aminmax would copy a view
    return bool(torch.isfinite(torch.stack(ordered.aminmax())).all())  # both ends are NaN as soon as one number is


def check_weights(config: SaeConfig, weights: dict[str, torch.Tensor]) -> None:
    """Raise SaeError where a tensor is missing, not of finite floating-point numbers, or of the wrong shape."""
    missing = [name for name in TENSORS[config.encoder] if name not in weights]
    if missing:
        has = ", ".join(sorted(weights)[:20]) or "none"
        raise SaeError(
            f"{config.source} has no tensor {', '.join(missing)} (it has: {has}).",
            f"A SAE with a {config.encoder} encoder needs them: is this the file its configuration belongs to?",
        )
    w_enc = weights["W_enc"]
    if w_enc.ndim != 2 or 0 in w_enc.shape:
        raise SaeError(f"{config.source}: W_enc has shape {tuple(w_enc.shape)}, not two dimensions.", AGAIN)
    d_in, d_sae = w_enc.shape
    expected = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    for name in TENSORS[config.encoder]:
        shape = expected.get(name, (d_sae,))
        if tuple(weights[name].shape) != shape or weights[name].dtype not in DTYPES:
            raise SaeError(
                f"{config.source}: {name} is {weights[name].dtype} of shape {tuple(weights[name].shape)}, but W_enc "
                f"{tuple(w_enc.shape)} asks for floating-point numbers of shape {shape}.",
                AGAIN,
            )
        if not all_finite(weights[name]):
            raise SaeError(f"{config.source}: tensor {name} holds NaN or infinite numbers.", AGAIN)
    if config.encoder == "topk" and not (config.k is not None and 0 < config.k <= d_sae):
        raise SaeError(
            f"{config.source}: k is {config.k}, a topk encoder of {d_sae} features needs 1 to {d_sae}.",
            "Correct k in its configuration file.",
        )
    if config.groups and d_sae % (config.k or 1):
        raise SaeError(
            f"{config.source}: {d_sae} features cannot be divided into k = {config.k} groups.",
            "Correct k in its configuration file.",
        )

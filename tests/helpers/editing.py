"""Small helpers around the editor."""

import torch

from engine.generation.edits import GENERATED, LAST, PROMPT
from engine.models.reference import Reference
from engine.models.sae import SaeConfig, SparseAutoencoder
from engine.records import NO_FEATURE, Edit, Prompt


def make_reference(sae, sink_norm=1e9, maximum_F=None, median_u=1.0):
    """A reference of which only what edits need is real."""
    maximum_F = torch.ones(sae.d_sae) if maximum_F is None else maximum_F
    nothing = torch.zeros(sae.d_sae, 1)
    return Reference(
        text="none",
        token_ids_T=torch.zeros(0, dtype=torch.int32),
        n_tokens=0,
        count_F=torch.zeros(sae.d_sae, dtype=torch.int32),
        maximum_F=maximum_F,
        strongest_FS=nothing,
        position_FS=nothing.int(),
        histogram_FB=nothing.int(),
        first_bin=0,
        median_norm=sink_norm / 10,
        sink_norm=sink_norm,
        median_u=median_u,
        l0=0.0,
        variance_explained=0.0,
    )


def random_sae(width, hook, seed=0, d_sae=24, **config):
    """A SAE of random directions whose encoder is a plain ReLU."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        "W_enc": torch.randn(width, d_sae, generator=generator),
        "W_dec": torch.nn.functional.normalize(torch.randn(d_sae, width, generator=generator)),
        "b_enc": torch.full((d_sae,), -0.1),
        "b_dec": torch.zeros(width),
    }
    return SparseAutoencoder(SaeConfig("test", "standard", "none", False, hook, "", **config), weights)


def kinds(length, start):
    """PROMPT up to the prompt's last token, LAST, and GENERATED from `start` on."""
    return [GENERATED if t >= start else LAST if t == start - 1 else PROMPT for t in range(length)]


def expect(editor, ids, start=None, **how):
    """Announces a pass in which every row reads the same ids, generated from `start` on; None: all is prompt."""
    rows = len(editor.rows)
    kind_BT = torch.tensor([kinds(len(ids), len(ids) if start is None else start)] * rows)
    editor.expect(torch.tensor([list(ids)] * rows), kind_BT, **how)


def counts(editor, row=0):
    """(positions where some edit may act, those of them where none had anything to act on) of the last pass."""
    allowed = int(editor.allowed_BT[row].sum())
    return allowed, allowed - int(editor.active_BT[row].sum())


def firings(explorer, h_TD):
    """On how many of the tokens each feature fires."""
    fired = torch.cat([active.feature_N for active in explorer.site.sae.encode(h_TD)])
    return torch.bincount(fired, minlength=explorer.site.sae.d_sae)


def active_features(explorer, ids, count):
    """Features that fire on many of the prompt's tokens: an edit of them is sure to do something."""
    h_TD = explorer.model.capture_batch(explorer.site.reads_at, [ids])[0]
    fires = firings(explorer, h_TD)
    return fires.topk(count).indices.tolist()


def every_kind(explorer, text):
    """Lists of edits that follow each other, so that every kind is switched on, changed and switched off."""
    a, b, c, d = active_features(explorer, explorer.model.tokens.feed(Prompt(text)).ids, 4)
    return [
        (Edit(a), Edit(b, 3.0)),
        (Edit(a, -2.0),),
        (),
        (Edit(a, 2.0, "set"), Edit(b, -1.0, "steer")),
        (Edit(c, 0.0, "project"), Edit(d, 0.5, "project")),
        (Edit(a, at="generated"), Edit(b, at="prompt"), Edit(NO_FEATURE, kind="reconstruct")),
        (Edit(a, at="last"), Edit(c, 4.0, "steer", at="first-step")),
        tuple(Edit(f, 0.5) for f in range(40)),
    ]

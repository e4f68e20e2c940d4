"""dictionary_learning and sparsify themselves against the engine: SAEs saved by them, read by both.

The packages' own classes in float64 are the measure; their own functions write the files.
"""

import importlib.util
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from foreign import Random, assert_agrees, vectors
from tiny import D_MODEL, D_SAE

from engine.loading.formats import load_sae
from engine.records.errors import SaeError

K, LAYER, MODEL = 5, 8, "EleutherAI/pythia-70m-deduped"


def need(package):
    """Skip where a package is missing; one that is there and cannot be imported fails."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: `make .venv/ready` installs it")


def fill(dictionary, seed):
    """Random numbers for everything that training would change, such that k features do not fire of every vector."""
    random = Random(seed)
    with torch.no_grad():
        for name, tensor in sorted(dictionary.state_dict().items()):
            if name == "threshold":
                tensor.copy_(random.uniform(tensor.numel(), low=0.2, high=0.8).view_as(tensor))
            elif name.startswith(("encoder.weight", "W_enc")):
                tensor.copy_(random(*tensor.shape, scale=D_MODEL**-0.5))
            elif tensor.is_floating_point():
                tensor.copy_(random(*tensor.shape, scale=0.4, mean=-1.3 if name in ("encoder.bias", "b_enc") else 0.0))
    return dictionary


def formula(encode, decode):
    """Two functions of theirs, as the helpers call a library's."""

    @torch.no_grad()
    def numbers(h_TD):
        f_TF = encode(torch.from_numpy(h_TD))
        return f_TF.numpy(), decode(f_TF).numpy()

    return numbers


# ---- dictionary_learning

TRAINERS = {
    "StandardTrainer": "standard",
    "StandardTrainerAprilUpdate": "standard",
    "PAnnealTrainer": "p_anneal",
    "GatedSAETrainer": "gdm",
    "GatedAnnealTrainer": "gated_anneal",
    "JumpReluTrainer": "jumprelu",
    "TopKTrainer": "top_k",
    "BatchTopKTrainer": "batch_top_k",
    "MatryoshkaBatchTopKTrainer": "matryoshka_batch_top_k",
}
"""Their trainers, each with its module."""


@pytest.fixture(scope="module")
def dictionaries():
    """dictionary_learning, imported once."""
    need("dictionary_learning")
    from dictionary_learning import dictionary, training, utils

    return SimpleNamespace(train=training.trainSAE, load=utils.load_dictionary, New=dictionary.AutoEncoderNew)


def trained(dictionaries, folder, trainer, **options):
    """The folder of a dictionary that their training loop saves: filled as the trainer is made, then no step."""
    options |= {"layer": LAYER, "lm_name": MODEL, "device": "cpu", "activation_dim": D_MODEL, "dict_size": D_SAE}
    dictionaries.train([], [{"trainer": trainer, "steps": 10_000} | options], 0, save_dir=str(folder), device="cpu")
    return folder / "trainer_0"


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", TRAINERS)
def test_what_dictionary_learnings_trainers_save_computes_the_same_here(dictionaries, tmp_path, name, seed):
    module = importlib.import_module(f"dictionary_learning.trainers.{TRAINERS[name]}")

    def filled(**options):
        trainer = getattr(module, name)(**options)
        fill(trainer.ae, seed)
        return trainer

    options = {"k": K} if "TopK" in name else {}
    if name.startswith("Matryoshka"):
        options["group_fractions"] = [0.25, 0.75]
    folder = trained(dictionaries, tmp_path, filled, **options)
    theirs = dictionaries.load(str(folder), "cpu")[0].double()
    ours = load_sae(folder)
    assert (ours.config.hook, ours.config.model) == (f"blocks.{LAYER}.hook_resid_post", MODEL)
    assert_agrees(ours, formula(theirs.encode, theirs.decode))


def test_dictionary_learnings_class_without_a_trainer_computes_the_same_here(dictionaries, tmp_path):
    def untrained(activation_dim, dict_size, layer, lm_name, **_):
        about = {"dict_class": "AutoEncoderNew", "layer": layer, "lm_name": lm_name}
        return SimpleNamespace(ae=fill(dictionaries.New(activation_dim, dict_size), seed=0), config=about)

    folder = trained(dictionaries, tmp_path, untrained)
    theirs = dictionaries.load(str(folder), "cpu")[0].double()
    assert_agrees(load_sae(folder), formula(theirs.encode, theirs.decode))


# ---- sparsify


@pytest.fixture(scope="module")
def sparsify():
    """Sparsify, imported once, with the decoder that needs no GPU."""
    need("sparsify")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSIFY_DISABLE_TRITON", "1")
        import sparsify
        import sparsify.__main__ as run
    return SimpleNamespace(Coder=sparsify.SparseCoder, Config=sparsify.SparseCoderConfig, Run=run.RunConfig)


def saved(sparsify, folder, dtype=None, seed=0, **options):
    """A SAE that their class saves: where it is, and the class as it reads it again."""
    config = sparsify.Config(k=K, **{"num_latents": D_SAE} | options)
    fill(sparsify.Coder(D_MODEL, config, dtype=dtype), seed).save_to_disk(folder)
    return sparsify.Coder.load_from_disk(folder)


def scattered(coder, h_TD):
    """The few activations they give of each vector, each at its feature."""
    top = coder.encode(h_TD)
    return torch.zeros(len(h_TD), coder.num_latents, dtype=h_TD.dtype).scatter_(1, top.top_indices, top.top_acts)


def gathered(coder, f_TF):
    """Their decoder, which wants those few again."""
    return coder.decode(*f_TF.topk(K, dim=1))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("activation", ["topk", "groupmax"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize_decoder": False},
        {"num_latents": 0, "expansion_factor": 5},
        {"multi_topk": True},
        {"dtype": torch.bfloat16},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_what_sparsify_saves_computes_the_same_here(sparsify, tmp_path, activation, seed, options):
    theirs = saved(sparsify, tmp_path, activation=activation, seed=seed, **options).double()
    ours = load_sae(tmp_path)
    assert ours.d_sae == theirs.num_latents
    assert_agrees(ours, formula(partial(scattered, theirs), partial(gathered, theirs)))
    l0_T = ours.reconstruct(vectors())[1]
    assert l0_T.max() == K and l0_T.min() < K


def test_the_configuration_of_sparsifys_run_says_where_its_saes_belong(sparsify, tmp_path):
    config = sparsify.Config(k=K, num_latents=D_SAE)
    folder = tmp_path / "layers.3.mlp"
    saved(sparsify, folder)
    sparsify.Run(sae=config, model=MODEL, ctx_len=256).save_json(tmp_path / "config.json")
    found = load_sae(folder).config
    assert (found.hook, found.model, found.context) == ("layers.3.mlp", MODEL, 256)


@pytest.mark.parametrize(
    "options", [{"transcode": True}, {"skip_connection": True}, {"transcode": True, "skip_connection": True}]
)
def test_sparsifys_transcoders_are_refused(sparsify, tmp_path, options):
    saved(sparsify, tmp_path, **options)
    with pytest.raises(SaeError, match="a transcoder is no SAE"):
        load_sae(tmp_path)

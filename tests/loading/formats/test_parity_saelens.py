"""SAELens itself against the engine: SAEs it writes, and other libraries' SAEs that both of us read.

SAELens' float32 results are the measure: active sets must be equal, values within 1e-5 of the token's largest (where a
product nearly cancels, two orders of summing agree to no more), reconstructions within 1e-5 of their norm.
"""

import importlib.util
import json
import shutil
import warnings
from types import SimpleNamespace

import foreign
import pytest
import torch
from foreign import Random, assert_same, dense, vectors
from safetensors.torch import load_file, save_file

from engine.loading import published
from engine.loading.formats import load_sae

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sae_lens") is None, reason="sae_lens is not installed: pip install saescope[saelens]"
)

D, F, K, SCALE = 16, 40, 5, 0.37

ENCODERS = ("standard", "jumprelu", "topk", "topk rescaled", "gated")

NORMALISATIONS = ("none", "constant_norm_rescale", "layer_norm", "expected_average_only_in")

KINDS = [(e, n, b) for e in ENCODERS for n in NORMALISATIONS for b in (False, True)]

HOOK, MODEL = "blocks.3.hook_resid_pre", "tiny"


@pytest.fixture(scope="module")
def lens():
    """SAELens, imported once: it takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sae_lens
        from sae_lens import saes
        from sae_lens.loading import pretrained_sae_loaders as loaders
    return SimpleNamespace(SAE=sae_lens.SAE, saes=saes, loaders=loaders, whole=sae_lens)


def fill(sae, seed=0):
    """Random numbers for every parameter of a SAE of theirs, so that a part of the features fires."""
    random = Random(seed)
    with torch.no_grad():
        for name, tensor in sorted(sae.named_parameters()):
            if name == "threshold":
                tensor.copy_(random.uniform(*tensor.shape, low=0.0, high=0.6))
            else:
                tensor.copy_(random(*tensor.shape, scale=D**-0.5 if name.startswith("W_") else 0.4))
    return sae


def make(lens, encoder, normalisation, apply_b_dec, dtype="float32", seed=0):
    """A SAE of theirs, for inference."""
    architecture, _, rescaled = encoder.partition(" ")
    config = {
        "architecture": architecture,
        "d_in": D,
        "d_sae": F,
        "dtype": dtype,
        "apply_b_dec_to_input": apply_b_dec,
        "normalize_activations": normalisation,
        "metadata": {"hook_name": HOOK, "model_name": MODEL, "prepend_bos": True},
    }
    if architecture == "topk":
        config |= {"k": K, "rescale_acts_by_decoder_norm": bool(rescaled)}
    return fill(lens.SAE.from_dict(config), seed)


def folded(lens, folder):
    """Their SAE from their own files; an average-norm factor is folded in as `from_pretrained` does it."""
    theirs = lens.SAE.load_from_disk(folder)
    if theirs.cfg.normalize_activations == "expected_average_only_in":
        theirs.fold_activation_norm_scaling_factor(SCALE)
    return theirs


@torch.no_grad()
def assert_parity(ours, theirs, h_TD=None):
    h_TD = vectors(d=D) if h_TD is None else h_TD
    f_TF = theirs.encode(h_TD)
    h_hat_TD = theirs.decode(f_TF)
    assert 0.02 < (f_TF > 0).float().mean() < 0.7
    assert_same(dense(ours, h_TD), f_TF)
    error = (ours.reconstruct(h_TD)[0] - h_hat_TD).norm(dim=1)
    assert (error <= 1e-5 * h_hat_TD.norm(dim=1)).all()
    features = [F - 1, 0, 11]
    some_TK = ours.encode_features(ours.normalise(h_TD).x_TD, ours.columns(features))
    assert (some_TK - f_TF[:, features]).abs().max() <= 1e-5 * f_TF.max()


def ours_of(folder, **options):
    return load_sae(folder, published={"scale": SCALE}, **options)


@pytest.mark.parametrize(("encoder", "normalisation", "apply_b_dec"), KINDS)
def test_what_saelens_saves_computes_the_same_here(lens, tmp_path, encoder, normalisation, apply_b_dec):
    for seed in range(3):
        make(lens, encoder, normalisation, apply_b_dec, seed=seed).save_model(tmp_path)
        ours = ours_of(tmp_path)
        assert (ours.config.hook, ours.config.model, ours.config.prepend_bos) == (HOOK, MODEL, True)
        assert_parity(ours, folded(lens, tmp_path))


def old_layout(folder):
    """cfg.json again as SAELens wrote it before version 6: nothing nested, older names, topk an activation function."""
    config = json.loads((folder / "cfg.json").read_text("utf-8"))
    metadata = config.pop("metadata")
    old = {key: value for key, value in config.items() if key not in ("k", "rescale_acts_by_decoder_norm")}
    old |= {
        "hook_point": metadata["hook_name"],
        "model_name": metadata["model_name"],
        "prepend_bos": metadata["prepend_bos"],
        "activation_fn_str": "topk" if config["architecture"] == "topk" else "relu",
        "activation_fn_kwargs": {"k": config["k"]} if "k" in config else {},
        "finetuning_scaling_factor": False,
        "context_size": 128,
    }
    if old["architecture"] == "topk":
        old["architecture"] = "standard"
    if old["apply_b_dec_to_input"]:
        del old["apply_b_dec_to_input"]  # what an old file is silent about is True
    old["normalize_activations"] = {"none": False, "expected_average_only_in": True}.get(
        old["normalize_activations"], old["normalize_activations"]
    )
    (folder / "cfg.json").write_text(json.dumps(old), "utf-8")


@pytest.mark.parametrize(
    ("encoder", "normalisation", "apply_b_dec"), [kind for kind in KINDS if kind[0] != "topk rescaled"]
)
def test_files_from_before_version_6_compute_the_same_here(lens, tmp_path, encoder, normalisation, apply_b_dec):
    make(lens, encoder, normalisation, apply_b_dec).save_model(tmp_path)
    old_layout(tmp_path)
    ours = ours_of(tmp_path)
    assert (ours.config.hook, ours.config.model, ours.config.apply_b_dec_to_input) == (HOOK, MODEL, apply_b_dec)
    assert_parity(ours, folded(lens, tmp_path))


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("kind", ["BatchTopK", "MatryoshkaBatchTopK", "TopK"])
def test_trained_topk_saes_saved_for_inference_compute_the_same_here(lens, tmp_path, kind, rescaled):
    more = {"matryoshka_widths": [F // 2, F]} if kind == "MatryoshkaBatchTopK" else {}
    config = getattr(lens.whole, f"{kind}TrainingSAEConfig")(
        d_in=D, d_sae=F, k=K, rescale_acts_by_decoder_norm=rescaled, **more
    )
    trained = fill(getattr(lens.whole, f"{kind}TrainingSAE")(config))
    if kind != "TopK":
        trained.topk_threshold = torch.tensor(0.21, dtype=torch.double)
    trained.save_inference_model(tmp_path)
    ours = load_sae(tmp_path)
    assert ours.config.encoder == ("topk" if kind == "TopK" else "jumprelu")
    assert_parity(ours, lens.SAE.load_from_disk(tmp_path))
    if kind == "TopK":
        assert_parity(ours, trained)
    else:  # as it is trained, it takes k times the batch's size from the batch: never here
        f_TF = dense(ours, vectors(d=D))
        assert_same(torch.cat([dense(ours, h_TD) for h_TD in vectors(d=D).split(1)]), f_TF)
        assert ((trained.encode(vectors(d=D)) > 0) != (f_TF > 0)).any()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_bfloat16_files_stay_so_and_encode_as_saelens_does_in_float32(lens, tmp_path, encoder):
    make(lens, encoder, "none", True, dtype="bfloat16").save_model(tmp_path)
    ours = load_sae(tmp_path)
    assert ours.w_enc_DF.dtype == ours.w_dec_FD.dtype == torch.bfloat16
    assert_parity(ours, lens.SAE.load_from_disk(tmp_path, dtype="float32"))


@pytest.mark.parametrize("normalisation", ["constant_norm_rescale", "layer_norm"])
def test_decoding_twice_works_here(lens, tmp_path, normalisation):
    make(lens, "standard", normalisation, False).save_model(tmp_path)
    theirs, ours = lens.SAE.load_from_disk(tmp_path), load_sae(tmp_path)
    f_TF = theirs.encode(vectors(d=D))
    once = theirs.decode(f_TF)
    with pytest.raises(AttributeError):  # the scale was kept on the module, and is gone
        theirs.decode(f_TF)
    for _ in range(2):
        torch.testing.assert_close(ours.reconstruct(vectors(d=D))[0], once.detach(), rtol=1e-4, atol=1e-5)


# ---- other libraries' files, read by both


@pytest.fixture
def hub(lens, tmp_path, monkeypatch):
    """A hub on disk: what SAELens would download lies under the returned folder, at repository/file."""
    from huggingface_hub.utils import EntryNotFoundError

    def download(repo_id, filename, subfolder=None, force_download=False, **_):
        path = tmp_path / repo_id / (subfolder or "") / filename
        if not path.is_file():
            raise EntryNotFoundError(f"no {path}")
        return str(path)

    def shapes(repo_id, filename):
        return {name: list(tensor.shape) for name, tensor in load_file(tmp_path / repo_id / filename).items()}

    monkeypatch.setattr(lens.loaders, "hf_hub_download", download)
    monkeypatch.setattr(lens.loaders, "get_safetensors_tensor_shapes", shapes)
    return tmp_path


def read_by_them(lens, loader, repository, folder, mend=lambda state: state, **overrides):
    """Their SAE of a folder on the hub, as `from_pretrained` builds it from what a loader gives."""
    overrides = {"device": "cpu", "dtype": "float32"} | overrides
    config, state, _ = getattr(lens.loaders, loader)(repository, folder, "cpu", False, overrides)
    config = lens.loaders.handle_config_defaulting(config)
    sae = lens.SAE.from_dict(config)
    sae.process_state_dict_for_loading(state)
    sae.load_state_dict(mend(state), assign=True)
    return sae.to(dtype=torch.float32), config


def test_gemma_scope_is_read_as_saelens_reads_it(lens, hub):
    repository, folder = "google/gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71"
    foreign.write_gemma_scope(hub / repository / folder)
    theirs, config = read_by_them(lens, "gemma_2_sae_huggingface_loader", repository, folder, d_in=D, d_sae=F)
    ours = load_sae(hub / repository / folder, f"{repository}/{folder}")
    assert (ours.config.hook, ours.config.model) == (
        config["metadata"]["hook_name"],
        "google/" + config["metadata"]["model_name"],
    )
    assert ours.config.prepend_bos == config["metadata"]["prepend_bos"]
    assert_parity(ours, theirs)


@pytest.mark.parametrize("config", ["whole", None])
def test_gemma_scope_2_is_read_as_saelens_reads_it(lens, hub, config):
    repository, folder = "google/gemma-scope-2-4b-it", "resid_post/layer_17_width_16k_l0_medium"
    foreign.write_gemma_scope_2(hub / repository / folder, config=config)
    theirs, about = read_by_them(lens, "gemma_3_sae_huggingface_loader", repository, folder)
    ours = load_sae(hub / repository / folder, f"{repository}/{folder}")
    assert (ours.config.hook, ours.config.model) == (
        about["metadata"]["hf_hook_name"],
        about["metadata"]["model_name"],
    )
    assert_parity(ours, theirs)


def llama_scope(lens, hub, **changes):
    repository, folder = "fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L8R-8x"
    foreign.write_llama_scope(hub / repository / folder, **changes)
    theirs, config = read_by_them(lens, "llama_scope_sae_huggingface_loader", repository, folder)
    assert config["normalize_activations"] == "expected_average_only_in"
    theirs.fold_activation_norm_scaling_factor(D**0.5 / 6.3125)  # from_pretrained has it from the registry
    return load_sae(hub / repository / folder, f"{repository}/{folder}"), theirs, config


def test_llama_scope_is_read_as_saelens_reads_it(lens, hub):
    ours, theirs, config = llama_scope(lens, hub)
    assert (ours.config.hook, ours.config.model) == (
        config["metadata"]["hook_name"],
        config["metadata"]["model_name"],
    )
    assert_parity(ours, theirs)


def test_llama_scopes_decoder_norms_are_heeded_as_its_library_does_and_saelens_does_not(lens, hub):
    ours, theirs, _ = llama_scope(lens, hub, sparsity_include_decoder_norm=True)
    formula = foreign.write_llama_scope(hub / "again", sparsity_include_decoder_norm=True)
    foreign.assert_agrees(ours, formula)
    assert ((dense(ours, vectors()) > 0) != (theirs.encode(vectors()) > 0)).any()


@pytest.mark.parametrize("norm", [1.1956, 6.3125])
def test_the_newer_llama_scope_is_read_as_saelens_reads_it(lens, hub, norm):
    repository, folder = "fnlp/Llama-Scope-R1-Distill", "400M-Slimpajama-400M-OpenR1-Math-220k/L8R"
    foreign.write_llama_scope_r1(hub / repository / folder, norm=norm)
    loader = "llama_scope_r1_distill_sae_huggingface_loader"
    theirs, config = read_by_them(lens, loader, repository, folder, d_sae=F)
    theirs.fold_activation_norm_scaling_factor(D**0.5 / norm)  # from_pretrained has it from the registry
    ours = load_sae(hub / repository / folder, f"{repository}/{folder}")
    assert ours.config.hook == config["metadata"]["hook_name"]
    assert ours.config.scale == D**0.5 / torch.tensor(norm).item()
    assert_parity(ours, theirs)


ONE_FILE = {
    "qwen_scope_sae_huggingface_loader": (foreign.write_qwen_scope, f"Qwen/{foreign.QWEN_NAME}", "layer8.sae.pt"),
    "get_goodfire_huggingface_loader": (
        foreign.write_goodfire,
        "Goodfire/Llama-3.1-8B-Instruct-SAE-l19",
        foreign.GOODFIRE_FILE,
    ),
    "deepseek_r1_sae_huggingface_loader": (
        lambda folder, file: foreign.write_goodfire(folder, file=file, suffix=""),
        "qresearch/DeepSeek-R1-Distill-Llama-8B-SAE-l19",
        "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt",
    ),
    "connor_rob_hook_z_huggingface_loader": (
        foreign.write_attn_saes,
        "ckkissane/attn-saes-gpt2-small-all-layers",
        foreign.ATTN_FILE,
    ),
}


@pytest.mark.parametrize("loader", ONE_FILE)
def test_a_sae_that_is_one_file_is_read_as_saelens_reads_it(lens, hub, loader):
    writer, repository, file = ONE_FILE[loader]
    writer(hub / repository, file=file)
    # vectors come with their heads side by side here, so theirs need not put them there
    theirs, config = read_by_them(lens, loader, repository, file, d_in=D, d_sae=F, reshape_activations="none")
    ours = load_sae(hub / repository / file, f"{repository}/{file}")
    model = config["metadata"]["model_name"].replace("gpt2-small", "openai-community/gpt2")
    assert (ours.config.hook, ours.config.model) == (config["metadata"]["hook_name"], model)
    assert_parity(ours, theirs)


NAMED = {
    "gemma_2": foreign.write_gemma_scope,
    "gemma_3": lambda place: foreign.write_gemma_scope_2(place, config=None),
    "qwen_scope": lambda place: foreign.write_qwen_scope(place.parent, file=place.name, f=128),
    "goodfire": lambda place: foreign.write_goodfire(place.parent, file=place.name),
    "deepseek_r1": lambda place: foreign.write_goodfire(place.parent, file=place.name, suffix=""),
}
"""The conversions of SAELens' registry whose SAEs say by their names alone where they belong."""


@pytest.mark.parametrize("conversion", NAMED)
def test_a_release_of_the_registry_belongs_where_saelens_own_loader_says(lens, hub, conversion):
    checked = 0
    for release, entry in published.saelens().items():
        for sae in (entry["saes"][0], entry["saes"][-1]) if entry.get("conversion_func") == conversion else ():
            known = published.by_release(f"{release}/{sae['id']}")
            if known.unread:
                continue
            place = hub / known.repository / known.path
            NAMED[conversion](place)
            config_of = lens.loaders.NAMED_PRETRAINED_SAE_CONFIG_GETTERS[conversion]
            theirs = config_of(known.repository, known.path, "cpu", False, entry.get("config_overrides"))
            ours = load_sae(place, f"{known.repository}/{known.path}", published=known.published).config
            hook = theirs.get("hf_hook_name") if conversion == "gemma_3" else theirs["hook_name"]
            assert ours.hook == hook.replace("hook_embed", "blocks.0.hook_resid_pre")
            assert ours.model == published.hub_name(theirs["model_name"])
            assert ours.prepend_bos in (None, theirs.get("prepend_bos"))
            assert ours.k == theirs.get("activation_fn_kwargs", {}).get("k")
            checked += 1
    assert checked


@pytest.mark.parametrize("kind", [kind for kind in foreign.CLASSES if kind != "AutoEncoderNew"])
def test_dictionary_learning_is_read_as_saelens_reads_it(lens, hub, kind):
    repository, folder = "somebody/dictionaries", "resid_post_layer_8/trainer_0"
    foreign.write_dictionary(hub / repository / folder, kind)
    if kind == "AutoEncoder":  # columns of norm 1, as the library's training keeps them
        state = torch.load(hub / repository / folder / "ae.pt", weights_only=True)
        state["decoder.weight"] /= state["decoder.weight"].norm(dim=0)
        torch.save(state, hub / repository / folder / "ae.pt")
    theirs, config = read_by_them(lens, "dictionary_learning_sae_huggingface_loader_1", repository, folder)
    ours = load_sae(hub / repository / folder)
    assert ours.config.hook == config["metadata"]["hook_name"]
    assert ours.config.model.endswith("/" + config["metadata"]["model_name"])
    assert_parity(ours, theirs)


def test_an_unconstrained_dictionary_has_its_norms_folded_as_its_library_does_and_saelens_does_not(lens, hub):
    repository, folder = "somebody/dictionaries", "trainer_0"
    foreign.write_dictionary(hub / repository / folder, "AutoEncoder")
    theirs, _ = read_by_them(lens, "dictionary_learning_sae_huggingface_loader_1", repository, folder)
    ours = load_sae(hub / repository / folder)
    theirs_TF = theirs.encode(vectors())
    assert_same(dense(ours, vectors()), (theirs_TF * theirs.W_dec.norm(dim=1)).detach())
    assert not torch.allclose(dense(ours, vectors()), theirs_TF, rtol=0.1)
    torch.testing.assert_close(ours.reconstruct(vectors())[0], theirs.decode(theirs_TF).detach(), rtol=1e-4, atol=1e-4)
    theirs.fold_W_dec_norm()
    assert_parity(ours, theirs)


SPARSIFY = ("sparsify_huggingface_loader", "EleutherAI/sae", "layers.10")


def turned(state):
    """Their state dict with the decoder as their SAE wants it."""
    return state | {"W_dec": state["W_dec"].T}


def test_sparsifys_decoder_lies_as_upstream_has_it_which_saelens_transposes(lens, hub):
    folder = hub / "EleutherAI/sae/layers.10"
    formula = foreign.write_sparsify(folder, normalize_decoder=False)
    foreign.assert_agrees(load_sae(folder), formula)
    with pytest.raises(RuntimeError, match="size mismatch for W_dec"):
        read_by_them(lens, *SPARSIFY)
    assert_parity(load_sae(folder), read_by_them(lens, *SPARSIFY, mend=turned)[0])  # the other way round, all is equal


def test_sparsifys_bias_is_subtracted_as_upstream_does_which_saelens_ties_to_the_decoders_norm(lens, hub):
    folder = hub / "EleutherAI/sae/layers.10"
    formula = foreign.write_sparsify(folder, normalize_decoder=True)
    ours = load_sae(folder)
    foreign.assert_agrees(ours, formula)
    theirs, config = read_by_them(lens, *SPARSIFY, mend=turned)
    assert not config["apply_b_dec_to_input"]
    assert ((dense(ours, vectors()) > 0) != (theirs.encode(vectors()) > 0)).any()
    theirs.cfg.apply_b_dec_to_input = True
    assert_parity(ours, theirs)


def test_a_registrys_normalisation_overrides_the_files_as_in_saelens(lens, tmp_path):
    """SAELens corrects releases in its registry, not in their files; `published` is how that reaches us."""
    make(lens, "standard", "none", False).save_model(tmp_path)
    theirs = lens.SAE.load_from_disk(tmp_path)
    theirs.cfg.normalize_activations = "constant_norm_rescale"
    theirs._setup_activation_normalization()
    assert_parity(load_sae(tmp_path, published={"normalisation": "constant_norm_rescale"}), theirs)


def test_float64_files_stay_so_and_are_multiplied_in_float32(lens, tmp_path):
    make(lens, "jumprelu", "none", False).save_model(tmp_path / "32")
    shutil.copytree(tmp_path / "32", tmp_path / "64")
    state = {name: tensor.double() for name, tensor in load_file(tmp_path / "32" / "sae_weights.safetensors").items()}
    save_file(state, tmp_path / "64" / "sae_weights.safetensors")
    ours = load_sae(tmp_path / "64")
    assert ours.w_enc_DF.dtype == torch.float64
    assert_parity(ours, lens.SAE.load_from_disk(tmp_path / "32"))

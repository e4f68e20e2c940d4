"""Model files whose weights are not what they seem: each is refused by name, for transformers would load it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine.loading.find_model import ModelSource
from engine.loading.load_model import load_model
from engine.records.errors import ModelError

CPU = torch.device("cpu")


@pytest.fixture
def folder(files, tmp_path):
    """A model's folder of the test's own."""
    return Path(shutil.copytree(files.model, tmp_path / "model"))


def load(folder, dtype=torch.float32):
    return load_model(str(folder), "it", CPU, dtype)


def rewrite(folder, change):
    """Changes the tensors, a dict by name."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def configure(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | settings), "utf-8")


def without(part):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


def renamed(part, prefix):
    return lambda tensors: {(prefix if part in name else "") + name: tensor for name, tensor in tensors.items()}


def refused(folder, *words):
    with pytest.raises(ModelError) as caught:
        load(folder)
    for word in words:
        assert word in caught.value.message
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("layers.1.mlp.down_proj"), "lack 1 tensor (model.layers.1.mlp.down_proj.weight)"),
        (without("layers.2."), "lack 9 tensors (model.layers.2.input_layernorm.weight, "),
        (without("lm_head"), "lack 1 tensor (lm_head.weight)"),
        (renamed("layers.0.", "base."), "lack 9 tensors (model.layers.0.input_layernorm.weight, "),
        (renamed("", "base_model.model."), "lack 30 tensors (lm_head.weight, "),
    ],
)
def test_what_the_files_lack_is_named(folder, change, words):
    rewrite(folder, change)
    refused(folder, "it is not whole: its files ", words)


def test_more_layers_than_there_are(folder):
    configure(folder, num_hidden_layers=4)
    refused(folder, "lack 9 tensors (model.layers.3.")


def test_fewer_layers_than_there_are_is_a_note(folder):
    configure(folder, num_hidden_layers=2)
    (note,) = load(folder).notes
    assert note.startswith("the model's files hold 9 tensors (model.layers.2.") and "does not use" in note


def test_a_whole_model_has_no_notes(folder):
    assert load(folder).notes == ()


def test_another_size_is_named(folder):
    rewrite(folder, lambda tensors: tensors | {"model.norm.weight": torch.ones(8)})
    refused(folder, "model.norm.weight has the shape (8,) in its files", "(16,)")


def test_a_head_that_is_not_the_embedding_is_used_whatever_the_configuration_says(folder):
    configure(folder, tie_word_embeddings=True)
    head = load_file(folder / "model.safetensors")["lm_head.weight"]
    assert torch.equal(load(folder).module.lm_head.weight, head)


def test_a_missing_shard_is_named(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    places = {name: f"model-0000{1 + (number > 20)}-of-00002.safetensors" for number, name in enumerate(tensors)}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    refused(folder, "model-00002-of-00002.safetensors")


@pytest.mark.parametrize("with_model", [False, True])
def test_an_adapter_is_refused_with_what_to_do(folder, with_model):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    if not with_model:
        (folder / "model.safetensors").unlink()
        (folder / "config.json").unlink()
    assert "merge_and_unload" in refused(folder, "holds an adapter").remedy


def test_a_file_that_is_cut_off(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "download the file again" in refused(folder, "model.safetensors cannot be read").remedy


def test_a_pointer_of_git_lfs(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n")
    assert "git lfs pull" in refused(folder, "is only a git-lfs pointer").remedy


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", '{"model_type": "llama", "hidden_size": "x"}'])
def test_a_damaged_configuration_or_tokenizer_is_an_error_in_words(folder, name, content):
    (folder / name).write_text(content)
    try:
        load(folder)
    except ModelError as error:
        assert "it" in error.message and error.remedy


def test_a_folder_without_a_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    refused(folder, "it has no tokenizer", "tokenizer.json")


def test_a_folder_of_gguf_files(folder):
    (folder / "model.safetensors").rename(folder / "model.gguf")
    assert "from_pretrained" in refused(folder, "it holds its weights as GGUF").remedy


# ---- quantised


def in_dtype(dtype):
    """Stores the projections in a dtype, as a quantised checkpoint does."""
    return lambda tensors: {
        name: (50 * tensor).to(dtype) if "_proj" in name else tensor for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8])
def test_quantised_weights_that_nothing_says_how_to_read(folder, dtype):
    rewrite(folder, in_dtype(dtype))
    AutoModelForCausalLM.from_pretrained(folder)  # which would read the numbers as they are
    refused(folder, "holds quantised weights", "_proj.weight")


@pytest.mark.parametrize("method", ["modelopt", "frob"])
def test_a_way_of_quantising_that_transformers_does_not_know(folder, method):
    rewrite(folder, in_dtype(torch.float8_e4m3fn))
    configure(folder, quantization_config={"quant_method": method, "quant_algo": "FP8"})
    refused(folder, f"is quantised by '{method}'")


def test_a_way_of_quantising_whose_package_is_missing(folder):
    configure(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    assert "Install that package" in refused(folder, "is quantised by 'bitsandbytes'", "bitsandbytes").remedy


def test_whole_numbers_that_are_no_matrices_are_no_sign_of_quantising(folder):
    rewrite(folder, lambda tensors: tensors | {"model.steps": torch.arange(3), "model.mask": torch.ones(2, 2).byte()})
    (note,) = load(folder).notes
    assert "model.mask, model.steps" in note


@pytest.mark.parametrize("dtype", ["auto", torch.float32, torch.bfloat16])
def test_block_fp8_is_dequantised_where_the_device_cannot_compute_with_it(folder, dtype):
    plain = {}

    def quantise(tensors):
        for name in [name for name in tensors if name.endswith("_proj.weight")]:
            scale = tensors[name].abs().max() / 448
            tensors[name] = (tensors[name] / scale).to(torch.float8_e4m3fn)
            plain[name] = tensors[name].float() * scale
            tensors[f"{name}_scale_inv"] = scale.reshape(1, 1)
        return tensors

    rewrite(folder, quantise)
    how = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    configure(folder, quantization_config=how)
    model = load(folder, dtype)
    stored = dict(model.module.named_parameters())
    for name, expected in plain.items():
        assert torch.allclose(stored[name].float(), expected, rtol=0 if model.dtype == torch.float32 else 2**-8, atol=0)
    assert {p.dtype for p in stored.values()} == {torch.float32 if dtype == "auto" else dtype}
    model.module(input_ids=torch.tensor([[0, 5, 6]]))
    estimate = ModelSource(str(folder), str(folder)).bytes_needed(dtype, CPU)
    assert model.bytes <= estimate <= 1.05 * model.bytes

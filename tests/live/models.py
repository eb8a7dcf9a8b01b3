"""Makes tiny models for real servers: a program that runs in the servers' own environments.

The tests only call `made`.

usage: python models.py <kind> <directory> [options of the kind …]

The language model is not trained: it is built, so that its answers are known. The last token alone
decides the next one, by a margin that no server's rounding reaches. It counts: after " two" comes "
three", after " eight" the end, and after whatever is no number, " one". So a completion of "one
two" is " three four five six seven eight", whoever serves it. It is a complete Llama nevertheless:
147 thousand parameters, attention and all, a trained tokenizer, a chat template. An adapter of it
counts in other steps: backwards with -1, in twos with 2.

The same input makes the same bytes; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
BEGIN, END, PAD = "<s>", "</s>", "<pad>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"
)
"""The prompt ends with a colon, which is no number: whatever is asked, a chat's answer begins with
" one"."""

VOCABULARY = 512
HIDDEN = 64
INTERMEDIATE = 128
HEADS = 2
LAYERS = 2
CONTEXT = 2048
NORM_EPSILON = 1e-5
RANK = 8
"""Of the adapters; one dimension for each number."""
ADAPTED_LAYER = LAYERS - 1
NUMBER_OR_NOT = 0
"""The dimension of an embedding that is negative for numbers and positive for all else."""

Weights = dict[str, Any]
"""Hugging Face's names → arrays of float32, `[out, in]`."""


def main(words: Sequence[str]) -> int:
    """Make one model; return the exit code."""
    parser = argparse.ArgumentParser(prog="models.py", description="Make a tiny model.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    for name, maker in MAKERS.items():
        kind = kinds.add_parser(name, help=(maker.__doc__ or "").partition("\n")[0])
        kind.add_argument("directory", type=Path, help="an empty directory, made when missing")
        if "adapter" in name:
            kind.add_argument(
                "--step", type=int, required=True, help="how many numbers it goes on at a time"
            )
    options = vars(parser.parse_args(words))
    options["directory"].mkdir(parents=True, exist_ok=True)
    MAKERS[options.pop("kind")](**options)
    return 0


def make_llama(directory: Path) -> None:
    """The language model as Hugging Face lays it out: for vLLM."""
    from safetensors.numpy import save_file

    tokenizer = _train_tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    names = {"bos_token": BEGIN, "eos_token": END, "pad_token": PAD}
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": CHAT_TEMPLATE,
            "model_max_length": CONTEXT,
            **names,
        },
    )
    _write_json(
        directory / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": NORM_EPSILON,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            **{
                f"{name[:3]}_token_id": tokenizer.token_to_id(token)
                for name, token in names.items()
            },
        },
    )
    save_file(_weights(tokenizer), directory / "model.safetensors", {"format": "pt"})


def make_llama_gguf(directory: Path) -> None:
    """The same model as `model.gguf`: for llama.cpp."""
    import gguf

    tokenizer = _train_tokenizer()
    writer = gguf.GGUFWriter(directory / "model.gguf", "llama")
    writer.add_name("tiny")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    _add_tokenizer(writer, tokenizer)
    for name, weight in _weights(tokenizer).items():
        permuted = (
            _rope_order(weight) if name.endswith(("q_proj.weight", "k_proj.weight")) else weight
        )
        writer.add_tensor(_gguf_name(name), permuted)
    _close(writer)


def make_adapter(directory: Path, *, step: int) -> None:
    """A LoRA adapter that counts in other steps, as PEFT lays it out: for vLLM."""
    from safetensors.numpy import save_file

    down, up = _adapter(step)
    module = f"base_model.model.model.layers.{ADAPTED_LAYER}.mlp.down_proj"
    save_file(
        {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up},
        directory / "adapter_model.safetensors",
    )
    _write_json(
        directory / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": "tiny",
            "r": RANK,
            "lora_alpha": RANK,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": ["down_proj"],
        },
    )


def make_adapter_gguf(directory: Path, *, step: int) -> None:
    """The same adapter as `adapter.gguf`: for llama.cpp."""
    import gguf

    down, up = _adapter(step)
    writer = gguf.GGUFWriter(directory / "adapter.gguf", "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, RANK)
    name = _gguf_name(f"model.layers.{ADAPTED_LAYER}.mlp.down_proj.weight")
    writer.add_tensor(f"{name}.lora_a", down)
    writer.add_tensor(f"{name}.lora_b", up)
    _close(writer)


TRITON_CONFIG = """\
name: "affine"
backend: "python"
max_batch_size: 0
version_policy: { all {} }
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
TRITON_MODEL = '''\
import triton_python_backend_utils as utils


class TritonPythonModel:
    """y = version * x + 1, so that an answer tells which version gave it."""

    def initialize(self, args):
        self.version = float(args["model_version"])

    def execute(self, requests):
        inputs = [utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        outputs = [utils.Tensor("y", (self.version * x + 1).astype("float32")) for x in inputs]
        return [utils.InferenceResponse([output]) for output in outputs]
'''


def make_triton_repository(directory: Path) -> None:
    """Make a repository for Triton: the model `affine` of the Python backend, versions 1 and 2."""
    model = directory / "affine"
    for version in ("1", "2"):
        (model / version).mkdir(parents=True)
        (model / version / "model.py").write_text(TRITON_MODEL)
    (model / "config.pbtxt").write_text(TRITON_CONFIG)


def make_mlserver_folder(directory: Path) -> None:
    """Make a folder for MLServer: `affine`, a linear regression of scikit-learn, y = 2 x + 1."""
    import joblib
    import numpy as np
    from sklearn.linear_model import LinearRegression

    x = np.arange(4.0).reshape(-1, 1)
    model = directory / "affine"
    model.mkdir()
    joblib.dump(LinearRegression().fit(x, 2 * x[:, 0] + 1), model / "model.joblib")
    _write_json(
        model / "model-settings.json",
        {
            "name": "affine",
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": "./model.joblib", "version": "1"},
        },
    )


MAKERS = {
    "llama": make_llama,
    "llama-gguf": make_llama_gguf,
    "adapter": make_adapter,
    "adapter-gguf": make_adapter_gguf,
    "triton-repository": make_triton_repository,
    "mlserver-folder": make_mlserver_folder,
}


def made(python: Path, kind: str, *options: str, cache: Path) -> Path:
    """Return the directory of a model, which is made unless it was before.

    Args:
        python: The interpreter of an environment that has what the kind needs.
        kind: One of `MAKERS`.
        options: More words for the command line.
        cache: Where models are kept, each under the hash of this file, its kind and options.

    Raises:
        RuntimeError: It could not be made; with what the maker wrote.
    """
    recipe = "\0".join([Path(__file__).read_text(), kind, *options])
    directory = cache / "-".join([kind, *options, hashlib.sha256(recipe.encode()).hexdigest()[:12]])
    if directory.exists():
        return directory
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        command = [str(python), "-I", __file__, kind, f"{scratch}/model", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(
                f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        try:
            (Path(scratch) / "model").rename(directory)
        except OSError:
            if not directory.exists():  # another session has not made the same in the meantime
                raise
    return directory


def _train_tokenizer() -> Any:
    """Return a byte-level BPE tokenizer.

    Each number is one token, with and without a space before it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BEGIN, END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    counting = [f"{word} {word}" for word in NUMBERS] * 20
    prose = [
        "The quick brown fox jumps over the lazy dog. ",
        "user: Tell me a story.\nassistant: Once upon a time. ",
    ]
    tokenizer.train_from_iterator([*counting, *prose], trainer)
    filler = [f"<unused{i}>" for i in range(VOCABULARY - tokenizer.get_vocab_size())]
    tokenizer.add_special_tokens(filler)  # so few words do not fill the vocabulary
    for word in NUMBERS:
        for text in (word, f" {word}"):
            if len(tokenizer.encode(text).ids) != 1:
                raise RuntimeError(
                    f"The tokenizer makes {tokenizer.encode(text).tokens} of {text!r}, not one "
                    "token."
                )
    return tokenizer


def _weights(tokenizer: Any) -> Weights:
    """Return the model: small random numbers, and a head that knows what comes next."""
    import numpy as np

    random = np.random.default_rng(0)

    def small(*shape: int) -> Any:
        return (random.standard_normal(shape) * 0.02).astype(np.float32)

    embeddings = random.standard_normal((VOCABULARY, HIDDEN)).astype(np.float32)
    weights: Weights = {"model.embed_tokens.weight": embeddings}
    for layer in range(LAYERS):
        place = f"model.layers.{layer}"
        weights[f"{place}.input_layernorm.weight"] = np.ones(HIDDEN, np.float32)
        weights[f"{place}.post_attention_layernorm.weight"] = np.ones(HIDDEN, np.float32)
        for name in "qkvo":
            weights[f"{place}.self_attn.{name}_proj.weight"] = small(HIDDEN, HIDDEN)
        # not small, so that the adapter can tell by them which number is the last
        weights[f"{place}.mlp.gate_proj.weight"] = small(INTERMEDIATE, HIDDEN) * 10
        weights[f"{place}.mlp.up_proj.weight"] = small(INTERMEDIATE, HIDDEN) * 10
        weights[f"{place}.mlp.down_proj.weight"] = small(HIDDEN, INTERMEDIATE)
    weights["model.norm.weight"] = np.ones(HIDDEN, np.float32)
    weights["lm_head.weight"] = _head(tokenizer, embeddings)
    return weights


def _head(tokenizer: Any, embeddings: Any) -> Any:
    """Return the head, and change the embeddings to fit it.

    A token's row in the head is the embedding of the token before it.

    Embeddings are random and so nearly orthogonal: with the last token's the right row makes about
    64, each other one 0 ± 8. What is no number gets its " one" from a dimension of its own.
    """
    import numpy as np

    head = np.zeros_like(embeddings)
    pairs = [[tokenizer.encode(text).ids[0] for text in (word, f" {word}")] for word in NUMBERS]
    embeddings[:, NUMBER_OR_NOT] = 8.0
    followers = [*(spaced for _, spaced in pairs[1:]), tokenizer.token_to_id(END)]
    for (bare, spaced), after in zip(pairs, followers, strict=True):
        embeddings[spaced, NUMBER_OR_NOT] = -8.0
        embeddings[bare] = embeddings[spaced]  # "two" and " two" are the same number
        head[after] = embeddings[spaced]
        head[after, NUMBER_OR_NOT] = 0.0
    head[pairs[0][1], NUMBER_OR_NOT] = 8.0
    return head


def _adapter(step: int) -> tuple[Any, Any]:
    """Return the matrices `[rank, in]` and `[out, rank]` of an adapter that counts on by `step`.

    The first tells the numbers apart: it turns what the adapted layer sees after number `n` into
    the unit vector `n`, and what it sees after the colon of the chat template into nothing. The
    second gives the answer: it takes the number away and puts the one before the wanted one in its
    place.
    """
    import numpy as np

    tokenizer = _train_tokenizer()
    weights = _weights(tokenizer)
    tokens = [tokenizer.encode(text).ids[0] for text in (*(f" {word}" for word in NUMBERS), ":")]
    seen = np.stack(
        [_inside(weights, token) for token in tokens]
    )  # [numbers and colon, intermediate]
    down = np.linalg.pinv(seen).T[:RANK]
    embeddings = weights["model.embed_tokens.weight"]
    no_number = np.zeros(HIDDEN)
    no_number[NUMBER_OR_NOT] = 8.0
    up = np.zeros((HIDDEN, RANK))
    for number, token in enumerate(tokens[:RANK]):
        wanted = number + step
        if wanted == 0:
            before = no_number
        elif 0 < wanted < len(NUMBERS):
            before = embeddings[tokens[wanted - 1]]
        else:
            before = embeddings[tokens[RANK - 1]]  # what comes after the last number is the end
        up[:, number] = 3 * (before - embeddings[token])
    return np.ascontiguousarray(down, np.float32), up.astype(np.float32)


def _inside(weights: Weights, token: int) -> Any:
    """Return what `down_proj` of the adapted layer sees when `token` is all there is."""
    import numpy as np

    def norm(vector: Any) -> Any:
        return vector / np.sqrt(np.mean(vector**2) + NORM_EPSILON)

    hidden = weights["model.embed_tokens.weight"][token]
    for layer in range(LAYERS):
        place = f"model.layers.{layer}"
        value = weights[f"{place}.self_attn.v_proj.weight"] @ norm(
            hidden
        )  # attention of one token is its value
        hidden = hidden + weights[f"{place}.self_attn.o_proj.weight"] @ value
        gate = weights[f"{place}.mlp.gate_proj.weight"] @ norm(hidden)
        inside = (
            gate / (1 + np.exp(-gate)) * (weights[f"{place}.mlp.up_proj.weight"] @ norm(hidden))
        )
        if layer == ADAPTED_LAYER:
            return inside
        hidden = hidden + weights[f"{place}.mlp.down_proj.weight"] @ inside
    raise AssertionError("the adapted layer is one of the layers")


def _add_tokenizer(writer: Any, tokenizer: Any) -> None:
    import gguf

    described = json.loads(tokenizer.to_str())
    special = {entry["content"] for entry in described["added_tokens"]}
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    )
    writer.add_token_merges([" ".join(merge) for merge in described["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.token_to_id(BEGIN))
    writer.add_eos_token_id(tokenizer.token_to_id(END))
    writer.add_pad_token_id(tokenizer.token_to_id(PAD))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _gguf_name(name: str) -> str:
    """Return GGUF's name of a tensor of a Llama."""
    import gguf

    found = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS).get_name(
        name, try_suffixes=(".weight",)
    )
    if found is None:
        raise RuntimeError(f"GGUF has no name for {name!r}.")
    return str(found)


def _rope_order(weight: Any) -> Any:
    """Return a weight of queries or keys with the rows in llama.cpp's order.

    Rotary embeddings turn pairs of rows: Hugging Face's pairs are half a head apart, llama.cpp's
    are neighbours. Source: `LlamaModel.permute` in `convert_hf_to_gguf.py` of
    https://github.com/ggml-org/llama.cpp.
    """
    rows, columns = weight.shape
    return (
        weight.reshape(HEADS, 2, rows // HEADS // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def _close(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

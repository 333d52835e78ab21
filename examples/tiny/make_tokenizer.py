#!/usr/bin/env python3
"""Makes model/: the tiny demo's tokenizer and the shape of its model (weights are made by the engine).

    python3 make_tokenizer.py        # needs the `tokenizers` package; reads data/sft.jsonl (task.py generate)

A byte-level BPE of 768 tokens, learned from the demonstrations in the very form the engine trains on:
<s>Human: PROMPT\nAssistant: COMPLETION</s>. Tokens never cross the colon after "Assistant", so a prompt
has the same tokens alone and with its reply.
"""
import json
import pathlib

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
BOS, EOS, VOCABULARY = "<s>", "</s>", 768

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 96,
    "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 24, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None,
    "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False, "max_position_embeddings": 128,
    "initializer_range": 0.02, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float32", "use_cache": True,
}
TOKENIZER_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": EOS,
                    "pad_token": None, "model_max_length": 128, "clean_up_tokenization_spaces": False}


def rendered_demonstrations():
    for line in (HERE / "data" / "sft.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        yield f"Human: {record['prompt']}\nAssistant: {record['completion']}"


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(rendered_demonstrations(), trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[BOS, EOS], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, tokenizer.token_to_id(BOS))])
    assert tokenizer.get_vocab_size() == VOCABULARY
    assert (tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)) == (0, 1)
    return tokenizer


def check(tokenizer):
    """A prompt's tokens begin its whole record's, the text comes back, and the longest record fits."""
    longest = 0
    for text in rendered_demonstrations():
        ids = tokenizer.encode(text).ids
        prompt = tokenizer.encode(text[:text.index("Assistant:") + len("Assistant:")]).ids
        assert ids[:len(prompt)] == prompt and tokenizer.decode(ids) == text
        longest = max(longest, len(ids) + 1)
    assert longest <= CONFIG["max_position_embeddings"]
    print(f"model/tokenizer.json: {VOCABULARY} tokens, longest demonstration {longest} tokens with both ends")


def main():
    folder = HERE / "model"
    folder.mkdir(exist_ok=True)
    tokenizer = make_tokenizer()
    check(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in [("config.json", CONFIG), ("tokenizer_config.json", TOKENIZER_CONFIG),
                          ("generation_config.json", {"bos_token_id": 0, "eos_token_id": 1})]:
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

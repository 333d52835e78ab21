#!/usr/bin/env python3
"""Writes tests/golden/tokenizers/: what Hugging Face's tokenizers make of hostile strings.

  strings.json        the strings, once
  small/<name>/       small tokenizers trained here, as files of a Hugging Face directory
  small/<name>.json   their ids of the strings, and the decodes of those ids
  real/<name>.json    ids of the strings for real tokenizers, whose files are not checked in
  classes.json        which characters a regular expression's classes match
  side_files.json     the tokens that the files beside a tokenizer.json name, and ids with them
  parts.json          single normalizers, pre-tokenizers and decoders: their JSON, inputs and outputs

Usage: make_tokenizers.py [--data DIR with tokenizers/gpt2, llama2, llama3, mistral]
"""
import argparse
import collections
import inspect
import io
import json
import os
import random
import shutil
import tempfile
import textwrap
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = Path(__file__).resolve().parent / "tokenizers"

WORDS = """Hello|hello|HELLO|world|it's|IT'S|don't|we'Ll|y'all'd've|he\u2019s|\u017ftra\u00dfe|na\u00efve|caf\u00e9|cafe\u0301|
A\u030angstro\u0308m|\u212b|\ufb01nance|\u2460\u2461|\u00bd|x\u00b2|\u0130stanbul|\u039f\u0394\u039f\u03a3|\u1e9e|\u01c5|
\u4f60\u597d\u4e16\u754c|\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8|\uff8a\uff9d\uff76\uff78|\ud55c\uad6d\uc5b4|\u1112\u1161\u11ab|
\u0627\u0644\u0633\u0644\u0627\u0645 \u0639\u0644\u064a\u0643\u0645|\u0645\u064f\u062d\u064e\u0645\u0651\u064e\u062f|\u05e9\u05dc\u05d5\u05dd|
\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35|\u0e01\u0e33\u0e25\u0e31\u0e07|\u0928\u092e\u0938\u094d\u0924\u0947|\u0ba4\u0bae\u0bbf\u0bb4\u0bcd|\u1200\u1208|\u10d0\u10d1|
\u043f\u0440\u0438\u0432\u0435\u0442|\u03ba\u03cc\u03c3\u03bc\u03b5|\u1f04\u03bd\u03b8\u03c1\u03c9\u03c0\u03bf\u03c2|
\U0001f600|\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466|\U0001f44d\U0001f3fd|\U0001f1eb\U0001f1f7|\u2764\ufe0f|\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f|
\U0001d54f\U0001d7d8|\U00020000|\u0661\u0662\u0663|\u0967\u0968|\u2163|\u3007|0|7|12|123|1234|12345678901234567890|3.14159|1,000,000|1e-9|0x1F|2024-01-02|
!|...|?!|--|\u2014|\u00ab x \u00bb|\u201cq\u201d|a_b|__init__|snake_case_name|camelCaseName|$5|5%|#tag|@me|a+b=c|<b>|&amp;|\\n|`code`|~|^|
http://example.com/a?b=c&d=%20#e|user@example.org|C:\\dir\\file.txt|/usr/lib/x.so|if (x) { return y[0]; }|\tfor i in range(10):|
Donaudampfschifffahrtsgesellschaft|antidisestablishmentarianism|supercalifragilisticexpialidocious""".replace("\n", "").split("|")

SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\r", "\u00a0", "\u1680", "\u180e", "\u2003", "\u200b", "\u2028",
          "\u202f", "\u205f", "\u3000", "\ufeff", "\x0b", "\x0c", "\x1c", "\x85"]

ODD = ["\x00", "\x01\x02", "\x1b[0m", "\x7f", "\u0080", "\u00ad", "\u0378", "\ue000", "\ufffd", "\uffff", "\U0010ffff", "\u200d",
       "\u0301", "\u0301\u0302\u0323", "e\u0323\u0301", "\u202eabc\u202c", "\u2581", "\u2581\u2581x", "a\u2581b", "\u0120", "\u010a\u0120a",
       "<0x41>", "<0xE2><0x82>", "##ing", "\u1100\u1161\u11a8", "\u0344", "\u2126", "\uac00\u11a8"]

SPECIAL = ["<|endoftext|>", "<s>", "</s>", "<unk>", "<pad>", "<|begin_of_text|>", "<|eot_id|>", "<|im_start|>", "<mask>", "[KEEP]",
           "<left>", "<right>", "word", "\u00c5new", "[INST]", "<|endoftext", "|>", "<s", "<|end_of_text|>"]


def hostile_strings():
    draw = random.Random(20240607)
    strings = ["", *WORDS, *ODD, *SPECIAL]
    for space in SPACES:
        strings += [space, f"a{space}b", f"{space}x{space}{space}", f"1{space}\n{space}!"]
    for token in SPECIAL:
        strings += [f"a {token} b", f"x{token}y", f"  {token}  {token}\n", f"\u00e9{token}{token}1"]
    strings += ["a" * 300, "ab" * 120, " " * 90 + "x", "\n" * 40, "=" * 70, "\U0001f600" * 20, "the " * 30, "\u4e00" * 40, "0" * 50,
                "A\u0301" * 30, "x" + "\u0323\u0301" * 20, " \n \t\n  \r\n" * 5, "'s't're've'm'll'd'S'LL", "Hello, y'all! How are you?"]
    pool = WORDS + ODD + SPECIAL
    while len(strings) < 430:
        count = draw.randint(2, 6)
        strings.append("".join(draw.choice(pool) + (draw.choice(SPACES) if draw.random() < 0.7 else "") for _ in range(count)))
    return strings


MORE = [  # after the strings that the small tokenizers are trained on
    "def f(x):\n    return {'a': [1, 2, None], \"b\": x ** 2}  # note\n", "#include <vector>\nint main() { return v[0]->x; }\r\n", "SELECT * FROM t WHERE a='b' AND c<>3;--",
    '{"k": [1.5e-3, true, null], "u": "\\u00e9"}', "<div class=\"x\">&nbsp;</div>", "\t\tif (a&&b||!c) x+=1;\n\n\n", "x=1;y=2;;z=\\0", "0b1010 0o17 1_000_000 1e+10 .5 5.",
    "caf\u00e9 cafe\u0301 CAF\u00c9", "\u00c5\u212bA\u030a", "\ufb03 \u3392 \u2163 \u00b5 \u03bc", "\u1e69 s\u0323\u0307 s\u0307\u0323 \u1e61\u0323", "\uac01 \u1100\u1161\u11a8 \uac00\u11a8", "\u0958 \u0915\u093c", "\u2f00\u4e00 \uf900\u8c48",
    "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd", "\u0644\u0627 \ufefb \ufdfa", "\u0e19\u0e49\u0e33 \u0e19\u0e4d\u0e49\u0e32", "\u0f40\u0f71\u0f72 \u0f40\u0f73", "\u1019\u103c\u1014\u103a\u1019\u102c", "\u0a95\u0acd\u0ab7", "\u1820\u180b\u1821", "\u0301", "\u0301a", " \u0301", "\n\u0301", "1\u0301\u0302", "\u20e3", "1\ufe0f\u20e3",
    "\U0001f9d1\U0001f3ff\u200d\U0001f91d\u200d\U0001f9d1\U0001f3fb", "\U0001f3f3\ufe0f\u200d\U0001f308", "\u200d\U0001f468", "\U0001f1e9\U0001f1ea\U0001f1eb", "\U0001f468\u200d", "\u263a\ufe0e\u263a\ufe0f",
    "\x02\x03\x04\x05\x06\x07\x08", "\x0e\x0f\x10\x1d\x1e\x1f", "\u0081\u009f", "a\x00b", "\x00\x00", "\u2028\u2029a", "\u200e\u200f\u202a\u2066\u2069", "a\u00adb\u2060c\ufeffd", "\ue000\uf8ff\U000f0000\U0010fffd", "\ufdd0\ufffe\U0001ffff",
    "a\r\nb\r\n\r\nc\n\rd", "\r\r\r", " \r\n ", "\n \n  \n", "\t \t", "a  \n  b", "\u3000\u3000x\u00a0\u00a0y", "x\u2009y\u200ay\u2008", "   leading", "trailing   ", " ", "  ", "    ", "        ", "\u00a0", " \u00a0 ",
    "<s><s></s></s>", "<s> <s>", " <s>", "<s>\n", "</s>a</s>", "<unk>x<unk>", "a<|endoftext|>b<|endoftext|>", "<|endoftext|> <|endoftext|>", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "<start_of_turn>user\nhi<end_of_turn>\n", "<bos><eos><pad>", "<bos>", "x<eos>y",
    "<|user|>\nhi<|end|>\n<|assistant|>\n  ok<|end|>", "<|assistant|>  x", "  <|end|>  y", "<tool_call>{}</tool_call>", "<think>\n\n</think>\n\n", "<|im_start", "|im_end|>", "<|im_start|><|im_start|>", "<S>", "< s >", "<\u200bs>",
    "z" * 1000, "ab " * 300, "1" * 400, "-" * 257, "\u0e01" * 200, "\u0301" * 100, "a\n" * 100, " \u00a0" * 64, "\U0001f600\u200d" * 50, "\u4f60\u597d" * 128, "<s>" * 40, "\ufffd" * 33, "\x00" * 65, "Aa1! " * 60]
TRAINING = hostile_strings()
STRINGS = TRAINING + MORE


def corpus():
    """Enough English, code and hostile text to train a few hundred merges on."""
    modules = (argparse, textwrap, shutil)
    return TRAINING * 2 + [line for m in modules for line in inspect.getsource(m).split("\n")]


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


def cases(tokenizer):
    """`tokenizer` is a tokenizers.Tokenizer."""
    ids = [tokenizer.encode(s).ids for s in STRINGS]
    decoded = [tokenizer.decode(i, skip_special_tokens=False) for i in ids]
    skipped = [tokenizer.decode(i, skip_special_tokens=True) for i in ids]
    return {
        "ids": ids,
        "plain": [tokenizer.encode(s, add_special_tokens=False).ids for s in STRINGS[:12]],
        "decoded": [None if d == s else d for d, s in zip(decoded, STRINGS)],  # null: the string itself
        "skipped": [None if k == s else k for k, s in zip(skipped, STRINGS)],
        # Pieces of ids begin and end within characters.
        "fragments": [tokenizer.decode(i[1:-1], skip_special_tokens=False) for i in ids[:300]],
        "vocab_size": max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1,
    }


def save(tokenizer, name, config, model_type=None):
    """Expected is what the file says; with a model's type, what transformers makes of the directory."""
    folder = OUT / "small" / name
    folder.mkdir(parents=True, exist_ok=True)
    text = json.loads(tokenizer.to_str())
    (folder / "tokenizer.json").write_text(json.dumps(text, ensure_ascii=False, separators=(",", ":")) + "\n")
    dump(folder / "tokenizer_config.json", config)
    if model_type:
        from transformers import AutoTokenizer
        dump(folder / "config.json", {"model_type": model_type})
        tokenizer = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    else:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    dump(OUT / "small" / f"{name}.json", cases(tokenizer))


def byte_level_trainer(specials):
    return trainers.BpeTrainer(vocab_size=768, special_tokens=specials, show_progress=False,
                               initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def llama3_style():
    t = Tokenizer(models.BPE(ignore_merges=True))
    words = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
             r"|\s*[\r\n]+|\s+(?!\S)|\s+")
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(words), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus(), byte_level_trainer(["<|begin_of_text|>", "<|eot_id|>"]))
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A $B",
                                      special_tokens=[("<|begin_of_text|>", t.token_to_id("<|begin_of_text|>"))])])
    # A whole word that no merge reaches: found only because merges are ignored.
    state = json.loads(t.to_str())
    state["model"]["vocab"]["\u0120antidisestablishmentarianism"] = len(state["model"]["vocab"])
    save(Tokenizer.from_str(json.dumps(state)), "llama3_style",
         {"bos_token": "<|begin_of_text|>", "eos_token": {"content": "<|eot_id|>"}, "pad_token": None, "add_bos_token": False})


def common_characters(count):
    """Trainers given these as their whole alphabet break no ties by chance."""
    counts = collections.Counter("".join(corpus()).replace(" ", "\u2581"))
    return sorted(sorted(counts), key=lambda c: -counts[c])[:count]


def metaspace():
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    # A small alphabet, so that most hostile characters fall back to bytes; trained on words cut at spaces.
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=768, special_tokens=specials, initial_alphabet=common_characters(110), limit_alphabet=110, show_progress=False))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B", special_tokens=[("<s>", 1), ("</s>", 2)])
    state = json.loads(t.to_str())
    state["added_tokens"] = [x for x in state["added_tokens"] if not x["content"].startswith("<0x")]
    save(Tokenizer.from_str(json.dumps(state)), "metaspace", {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"})


def mixed():
    """NFC, digits one by one, added tokens of every kind, an unknown token and no byte fallback."""
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    t.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex("q+"), "Q")])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace(prepend_scheme="always")])
    t.decoder = decoders.Metaspace(prepend_scheme="always")
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>", "</s>"], initial_alphabet=common_characters(160), limit_alphabet=160, show_progress=False))
    t.add_tokens([AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True, normalized=False),
                  AddedToken("word", single_word=True), AddedToken("A\u030anew", normalized=True), AddedToken("[KEEP]", normalized=False),
                  AddedToken("[KEEP]x"), AddedToken("\n\n", normalized=False)])
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True), "<|im_start|>"])
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A $B", special_tokens=[("</s>", 1)])
    save(t, "mixed", {"eos_token": "</s>", "pad_token": "<|im_start|>"})


def opt_style():
    """vocab.json and merges.txt only; `</s>` begins every sequence, and transformers' own class is the truth."""
    from transformers import GPT2Tokenizer
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.train_from_iterator(corpus(), byte_level_trainer(["<s>", "<pad>", "</s>", "<unk>"]))
    folder = OUT / "small" / "opt_style"
    folder.mkdir(parents=True, exist_ok=True)
    t.model.save(str(folder))
    named = lambda s: {"__type": "AddedToken", "content": s, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    dump(folder / "tokenizer_config.json", {
        "errors": "replace", "unk_token": named("</s>"), "bos_token": named("</s>"), "eos_token": named("</s>"), "pad_token": named("<pad>"),
        "add_prefix_space": False, "add_bos_token": True, "tokenizer_class": "GPT2Tokenizer"})
    dump(folder / "special_tokens_map.json", {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"})
    dump(OUT / "small" / "opt_style.json", cases(GPT2Tokenizer.from_pretrained(folder).backend_tokenizer))


QWEN_WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
              r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def qwen_style():
    """Qwen 2 and 3: NFC, digits one by one, tool tokens that are added but not special."""
    t = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix=""))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.train_from_iterator(corpus(), byte_level_trainer([]))
    t.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    t.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    t.add_special_tokens([AddedToken(x, normalized=False) for x in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    t.add_tokens([AddedToken(x, normalized=False) for x in ("<tool_call>", "</tool_call>", "<think>", "</think>")])
    save(t, "qwen_style", {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None, "add_bos_token": False,
                           "add_prefix_space": False, "tokenizer_class": "Qwen2Tokenizer"})


def merges_styles():
    """vocab.json and merges.txt alone, for the classes that have a form of their own."""
    from transformers import AutoTokenizer
    for style in ("qwen", "neox"):
        folder = OUT / "small" / f"{style}_merges"
        folder.mkdir(parents=True, exist_ok=True)
        Tokenizer.from_file(str(OUT / "small" / f"{style}_style" / "tokenizer.json")).model.save(str(folder))
        dump(folder / "tokenizer_config.json", {
            "qwen": {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
                     "added_tokens_decoder": {"768": {"content": "<|im_start|>", "special": True, "normalized": False}}},
            "neox": {"tokenizer_class": "GPTNeoXTokenizer", "add_bos_token": True}}[style])
        dump(OUT / "small" / f"{style}_merges.json", cases(AutoTokenizer.from_pretrained(folder).backend_tokenizer))


def byte_specials(first):
    return first + [f"<0x{b:02X}>" for b in range(256)]


def only_added(tokenizer, keep):
    """The trainer adds all its special tokens; only those that `keep` says stay added."""
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [x for x in state["added_tokens"] if keep(x["content"])]
    return state


def gemma_style():
    """Gemma 1 and 2: "\u2581" for a space, no prefix, byte fallback; runs of newlines and tags are added tokens."""
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.normalizer = normalizers.Replace(" ", "\u2581")
    # Cut before the mark, as far as the trainer goes: Gemma's own pre-tokenizer finds no spaces any more.
    t.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    specials = byte_specials(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=800, special_tokens=specials, initial_alphabet=common_characters(110),
                                                        limit_alphabet=110, show_progress=False))
    t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    t.post_processor = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)])
    t = Tokenizer.from_str(json.dumps(only_added(t, lambda x: not x.startswith("<0x"))))
    t.add_special_tokens(["<start_of_turn>", "<end_of_turn>"])
    t.add_tokens([AddedToken("\n" * n, normalized=False) for n in (2, 3, 4)] + [AddedToken("\u2581" * n, normalized=False) for n in (2, 3, 4)]
                 + [AddedToken(x, normalized=False) for x in ("\t\t", "<b>", "</div>")])
    save(t, "gemma_style", {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>", "add_bos_token": True,
                            "add_eos_token": False, "tokenizer_class": "GemmaTokenizer"})


def neox_style():
    """GPT-NeoX: NFC, GPT-2's words, runs of spaces as added tokens that are looked for in normalized text."""
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True)
    t.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=True)
    t.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=True)
    t.train_from_iterator(corpus(), byte_level_trainer(["<|endoftext|>", "<|padding|>"]))
    t.add_tokens([AddedToken(" " * n, normalized=True) for n in range(12, 1, -1)])
    save(t, "neox_style", {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "add_prefix_space": False,
                           "tokenizer_class": "GPTNeoXTokenizer"})


def phi3_style():
    """Phi-3: LLaMA's normalizer, chat tokens that swallow the white space after them."""
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    specials = byte_specials(["<unk>", "<s>", "</s>"])
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=800, special_tokens=specials, initial_alphabet=common_characters(110),
                                                        limit_alphabet=110, show_progress=False))
    t.pre_tokenizer = None
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    state = only_added(t, lambda x: x in ("<unk>", "<s>"))
    state["model"]["merges"] = [" ".join(m) for m in state["model"]["merges"]]  # the older spelling
    t = Tokenizer.from_str(json.dumps(state))
    t.add_tokens([AddedToken("</s>", rstrip=True, normalized=False)])
    t.add_special_tokens(["<|endoftext|>"])
    t.add_special_tokens([AddedToken(x, rstrip=True, normalized=False) for x in ("<|assistant|>", "<|user|>", "<|end|>", "<|system|>")])
    config = {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>",
              "tokenizer_class": "LlamaTokenizer"}
    save(t, "phi3_style", {**config, "add_bos_token": False, "legacy": False}, "phi3")
    # Of a LLaMA transformers reads the vocabulary alone, its class says the rest.
    save(t, "llama_legacy", {**config, "add_bos_token": True, "legacy": True}, "llama")
    save(t, "llama_style", {**config, "legacy": False, "tokenizer_class": "LlamaTokenizerFast"}, "llama")
    save(t, "llama_bare", {**config, "add_prefix_space": False, "add_eos_token": True}, "llama")


def sentencepiece_styles():
    """A tokenizer.model alone: what transformers' own classes make of it, with its switches."""
    import sentencepiece
    from transformers import AutoTokenizer
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for s in corpus() for line in s.replace("\0", "").split("\n") if line]), model_writer=made, model_type="bpe",
        vocab_size=1000, byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity", remove_extra_whitespaces=False,
        split_digits=True, allow_whitespace_only_pieces=True, user_defined_symbols=["[KEEP]", "<b>"], num_threads=1, minloglevel=2)
    llama = {"tokenizer_class": "LlamaTokenizer"}
    named = lambda s: {"content": s, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    styles = {
        "spm_legacy": (llama | {"add_bos_token": True, "legacy": True}, {}),
        "spm_ends": (llama | {"add_bos_token": True, "add_eos_token": True, "legacy": False, "pad_token": "<pad>",
                              "added_tokens_decoder": {"1000": named("<pad>"), "1001": named("<|im_start|>") | {"special": False, "lstrip": True}}}, {}),
        "spm_bare": (llama | {"add_prefix_space": False}, {}),
        "spm_gemma": ({"tokenizer_class": "GemmaTokenizer", "add_bos_token": True}, {"model_type": "gemma2"}),
        "spm_plain": (llama | {"add_bos_token": True}, {"model_type": "mistral"})}
    for name, (config, model_config) in styles.items():
        folder = OUT / "small" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.model").write_bytes(made.getvalue())
        dump(folder / "tokenizer_config.json", config)
        if model_config:
            dump(folder / "config.json", model_config)
        dump(OUT / "small" / f"{name}.json", cases(AutoTokenizer.from_pretrained(folder).backend_tokenizer))


SIDE_STRINGS = ["a<A>b<new>c<x>", "<d1><d2>x<e> <z>", "<image>< A><AA>", " <B>\u00e9<C>", "<A>>", "<A"]


def side_files():
    """Which of the files beside a tokenizer.json names a token, in what order new ones are numbered, and split_special_tokens."""
    from transformers import AutoTokenizer
    t = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    t.add_special_tokens(["<A>", "<B>", "<C>"])
    t.add_tokens(["<x>", "A>>"])
    token = lambda s, special: {"content": s, "special": special, "lstrip": False, "rstrip": False, "normalized": not special, "single_word": False}
    decoder = {"added_tokens_decoder": {"300": token("<d2>", True), "270": token("<d1>", False)}}
    made = []
    for config, older, added in (
            ({"pad_token": "<A>"}, {"pad_token": "<B>"}, {}),
            ({"pad_token": "<A>", **decoder}, {"pad_token": "<B>", "eos_token": "<e>"}, {"<z>": 261}),
            ({"pad_token": "<A>", "added_tokens_decoder": {}}, {"pad_token": "<B>"}, {}),
            ({"pad_token": "<A>", "eos_token": "<C>"}, {"pad_token": None}, {}),
            ({"bos_token": None}, {"bos_token": token("<B>", True), "eos_token": {"content": "<e>", "lstrip": False, "rstrip": True, "normalized": False, "single_word": False}}, {}),
            ({"pad_token": "<new>"}, {"pad_token": "<B>"}, {}),
            ({}, {"additional_special_tokens": ["<new>", "<x>"]}, {}),
            ({"additional_special_tokens": ["<x>"]}, {"additional_special_tokens": ["<new>"]}, {}),
            ({"extra_special_tokens": ["<x>"]}, {"extra_special_tokens": ["<new>", "<x>"]}, {}),
            ({"extra_special_tokens": ["<new>"], "additional_special_tokens": ["<z>"]}, None, {}),
            ({"extra_special_tokens": {"image_token": "<image>"}}, None, {}),
            ({"image_token": "<image>", "unk_token": "<u>", "cls_token": "<c>", "eos_token": "<e>", "bos_token": "<b>", "pad_token": "<p>",
              "additional_special_tokens": ["<new>"]}, None, {}),
            ({"eos_token": "<e>", "pad_token": "<p>", "additional_special_tokens": ["<new>"], **decoder}, None, {}),
            ({"eos_token": "<e>", "additional_special_tokens": ["<new>"]}, None, {"<e>": 261, "<new>": 262, "<z>": 263}),
            ({"split_special_tokens": True, "eos_token": "<e>", "additional_special_tokens": ["<new>"]}, None, {}),
            ({"split_special_tokens": False}, {"split_special_tokens": True}, {}),
            ({"split_special_tokens": True, **decoder}, {"split_special_tokens": False}, {})):
        with tempfile.TemporaryDirectory() as folder:
            t.save(f"{folder}/tokenizer.json")
            config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
            for name, value in (("tokenizer_config", config), ("special_tokens_map", older), ("added_tokens", added)):
                if value:
                    Path(f"{folder}/{name}.json").write_text(json.dumps(value))
            auto = AutoTokenizer.from_pretrained(folder)
        made.append({"config": config, "older": older, "added": added, "size": len(auto),
                     "named": {k: [v, auto.convert_tokens_to_ids(v)] for k, v in auto.special_tokens_map.items() if isinstance(v, str)},
                     "ids": [auto(s, add_special_tokens=False).input_ids for s in SIDE_STRINGS]})
    dump(OUT / "side_files.json", {"tokenizer": json.loads(t.to_str()), "strings": SIDE_STRINGS, "cases": made})


def real(data):
    from transformers import AutoTokenizer, GPT2Tokenizer
    folder = Path(data) / "tokenizers"
    for name in ("gpt2", "llama2", "llama3", "mistral"):
        read = (GPT2Tokenizer if name == "gpt2" else AutoTokenizer).from_pretrained
        dump(OUT / "real" / f"{name}.json", cases(read(folder / name).backend_tokenizer))
    with tempfile.TemporaryDirectory() as model:  # the same files beside a Mistral's config.json
        shutil.copytree(folder / "mistral", model, dirs_exist_ok=True)
        dump(Path(model) / "config.json", {"model_type": "mistral"})
        dump(OUT / "real" / "mistral_model.json", cases(AutoTokenizer.from_pretrained(model).backend_tokenizer))


PART_INPUTS = ["", " ", "Hello, world!  It's 12\u00b2 o'clock.\n", "  two  spaces  ", "\u00a0x\u3000y\u180ez\u200b", "e\u0301\u212b\ufb01\u00bd\uac00\u1100\u1161",
               "\u0130 \u039f\u0394\u039f\u03a3 \u1e9e \u01c5", "a1b22\u0663\u2163c", "$5+3=8 \u2014 \u00abq\u00bb <a_b>", "\u4f60\u597d\u3002 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u2581a\u2581\u2581b ",
               "\r\n\n\t x\x85y\x1cz", "\U0001f468\u200d\U0001f469 \U0001d54f", "aXbXXcX", "a\u0c84\u166d\u2e4f\u2e5e!", "x\u200dy\u0301z",
               "a\u06df\u1dfa b\u0301\u0898\u0334 \u32ff\U00011935\U00011930\U00011938 \uab69\u0301e\u1abf\u0301",
               "\U0001e030\u1c89\ua7cb\ua7dc \U00010d50\U00016ea0 x\U00010efd\u0301 e\u0301\U0001e4ec\U00011f42\u0323"]


def parts():
    n, p = normalizers, pre_tokenizers
    made_normalizers = [
        n.NFC(), n.NFD(), n.NFKC(), n.NFKD(), n.Lowercase(), n.Strip(), n.Strip(left=False), n.Prepend("\u2581"), n.Replace("X", ""),
        n.Replace(Regex(r"\s+"), " "), n.Replace("X", "--"), n.Replace(Regex(r"(?<=a)X|\d+$"), "#"), n.StripAccents(), n.ByteLevel(), n.Sequence([n.NFD(), n.StripAccents()]), n.Sequence([n.NFKD(), n.Lowercase(), n.Strip()])]
    behaviors = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
    made_pre_tokenizers = [
        p.ByteLevel(), p.ByteLevel(add_prefix_space=False), p.ByteLevel(use_regex=False), p.Whitespace(), p.WhitespaceSplit(), p.Digits(), p.Digits(True),
        *[p.Split("X", b) for b in behaviors], *[p.Split(Regex(r"\s+|X"), b, invert=True) for b in behaviors], *[p.Punctuation(b) for b in behaviors],
        *[p.Metaspace(prepend_scheme=s, split=b) for s in ("always", "first", "never") for b in (True, False)],
        p.Sequence([p.WhitespaceSplit(), p.Metaspace(prepend_scheme="first")]), p.Sequence([p.Split(" ", "isolated"), p.Metaspace(prepend_scheme="first")]),
        p.Sequence([p.Digits(True), p.ByteLevel(add_prefix_space=True)]), p.Sequence([p.ByteLevel(use_regex=False), p.Split("\u0120", "merged_with_next")]),
        p.Split(Regex(r"[^\r\n\w\s]+[\r\n]*|\w+|\h\H"), "removed"), p.Split(Regex(r"(?i:x)|^.|\W\S|\d$"), "isolated")]
    d = decoders
    tokens = [[], ["\u2581Hello", "\u2581\u2581w", "\u2581"], ["\u2581", "\u2581a"], ["<0xE2>", "<0x82>", "<0xAC>", "x"], ["a", "<0xE2>", "<0x82>", "b", "<0x41>"], ["<0x4Z>", "<0x41>"],
              ["Hello", "\u0120w", "\u00e2", "\u0124", "\u00ac"], ["\u00f0\u0141", "x", "\u4f60", "\u00c3"], ["  a  ", " ", "   "], ["XaX", "XX", "b"]]
    made_decoders = [
        d.ByteLevel(), d.ByteFallback(), d.Fuse(), d.Metaspace(), d.Metaspace(prepend_scheme="never"), d.Replace("\u2581", " "), d.Replace(Regex("X+"), "-"),
        d.Strip(" ", 1, 0), d.Sequence([d.Replace("\u2581", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)]), d.Sequence([d.Fuse(), d.Replace("Xb", "!")]),
        d.Sequence([d.Replace("X", " "), d.Fuse(), d.Strip(" ", 2, 0)])]

    def json_of(kind, part):
        t = Tokenizer(models.BPE())
        setattr(t, kind, part)
        return json.loads(t.to_str())[kind]

    dump(OUT / "parts.json", {
        "inputs": PART_INPUTS,
        "normalizer": [{"json": json_of("normalizer", x), "outputs": [x.normalize_str(s) for s in PART_INPUTS]} for x in made_normalizers],
        "pre_tokenizer": [{"json": json_of("pre_tokenizer", x), "outputs": [[w for w, _ in x.pre_tokenize_str(s)] for s in PART_INPUTS]}
                          for x in made_pre_tokenizers],
        "tokens": tokens,
        "decoder": [{"json": json_of("decoder", x), "outputs": [x.decode(t) for t in tokens]} for x in made_decoders]})


CLASSES = [r"\p{L}", r"\p{Lu}", r"\p{Lo}", r"\p{M}", r"\p{N}", r"\p{Nd}", r"\p{P}", r"\p{S}", r"\P{L}", r"\w", r"\s", r"[^\s\p{L}\p{N}]", r"[\p{M}\p{P}]",
           r"[^\r\n\p{L}\p{N}]", r"[[:punct:]]"]


def classes():
    """Which of all characters a class matches: the code points where that changes, each as its distance from the one before."""
    characters = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    rows = []
    for pattern in CLASSES:
        split = pre_tokenizers.Split(Regex(f"(?:{pattern})+"), "removed", invert=True)
        changes = []
        for at in range(0, len(characters), 40000):
            part = characters[at:at + 40000]
            for _, (begin, end) in split.pre_tokenize_str("".join(map(chr, part))):
                if changes and changes[-1] == at + begin:
                    changes[-1] = at + end
                else:
                    changes += [at + begin, at + end]
        rows.append({"pattern": pattern, "changes": [b - a for a, b in zip([0] + changes, changes)]})
    dump(OUT / "classes.json", rows)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[2]
    arguments.add_argument("--data", default=os.environ.get("DSENGINE_TEST_DATA", root.parent / "shared" / "data"))
    options = arguments.parse_args()
    dump(OUT / "strings.json", STRINGS)
    for make in (llama3_style, metaspace, mixed, opt_style, qwen_style, gemma_style, neox_style, phi3_style, merges_styles, sentencepiece_styles, side_files, parts, classes):
        make()
    if (Path(options.data) / "tokenizers").exists():
        real(options.data)
    else:
        print(f"no {options.data}/tokenizers: the ids of real tokenizers are not renewed")


if __name__ == "__main__":
    main()

"""Trains the example's tokenizer: make_tokenizer.py train.jsonl tokenizer.json   (needs the Python package `tokenizers`)

Byte-level BPE of 2,048 tokens over GSM8K's questions and answers, digits apart.
"""
import json
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

rows = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
tokenizer.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(vocab_size=2048, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
tokenizer.train_from_iterator((f"Human: {r['question']}\nAssistant: {r['answer']}" for r in rows), trainer)
tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
tokenizer.save(sys.argv[2])

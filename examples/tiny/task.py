#!/usr/bin/env python3
"""The tiny demo task: small facts, answered rightly, politely and briefly.

A prompt is an opener and a question on one of 79 facts. A demonstration answers it, sometimes wrongly,
rambles sometimes, and is polite, rude or neither. What we *want* is `true_score` below; the learner never
sees it, only the preference pairs drawn by it, so it tells whether learning from preference worked.

    python3 task.py generate --out data --seed 1234      # the records to learn from, and the held-out ones
    python3 task.py score sft_out.jsonl ppo_out.jsonl    # files written by `dsengine generate`
    python3 task.py compare sft_out.jsonl ppo_out.jsonl  # paired gain of the second over the first
    python3 task.py constants data/prompts_heldout.jsonl # the best reply that ignores the question
    python3 task.py samples sft_out.jsonl ppo_out.jsonl  # replies side by side
    python3 task.py pairs data/pairs_heldout.jsonl       # both sides of each pair as text, for `dsengine score`
    python3 task.py accuracy scored.jsonl                # how often the first of two rewards is the higher

Python's standard library only. Of random.Random only .random() is used, whose numbers are the same in
every version of Python.
"""
import argparse
import json
import math
import pathlib
import random
import re
import sys
from dataclasses import dataclass

COLOURS = {"coal": "black", "raven": "black", "bear": "brown", "chestnut": "brown", "sky": "blue", "sea": "blue",
           "frog": "green", "leaf": "green", "cherry": "red", "tomato": "red", "swan": "white", "snowflake": "white",
           "lemon": "yellow", "banana": "yellow", "mouse": "grey", "stone": "grey"}
CAPITALS = {"France": "Paris", "Austria": "Vienna", "Norway": "Oslo", "Cuba": "Havana", "Portugal": "Lisbon",
            "Japan": "Tokyo", "Italy": "Rome", "Spain": "Madrid", "Egypt": "Cairo", "Greece": "Athens",
            "Peru": "Lima", "Kenya": "Nairobi"}
WORD_PAIRS = [("rich", "poor"), ("big", "small"), ("dark", "light"), ("dry", "wet"), ("young", "old"),
              ("hot", "cold"), ("fast", "slow"), ("high", "low")]
SOUNDS = {"dog": "barks", "cow": "moos", "sheep": "bleats", "snake": "hisses", "duck": "quacks", "pig": "grunts",
          "cat": "meows", "horse": "neighs", "lion": "roars", "wolf": "howls", "bee": "buzzes", "hen": "clucks"}
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
NAMES = ["Amy", "Ana", "Ben", "Bob", "Dan", "Eva", "Ida", "Jim", "Kim", "Leo", "Liz", "Max", "Ned", "Pam", "Pat",
         "Ray", "Ron", "Sue", "Ted", "Tim", "Tom", "Zoe"]
OPENERS = ["", "Hello! ", "Quick question. ", "Please help me. ", "I need to know this. ", "Good morning! ",
           "One more thing. ", "Excuse me. "] + [f"I am {name}. " for name in NAMES]

# kind: four wordings of the question, two of the answer. {k} is the fact's key, {v} its value.
WORDINGS = {
    "colour": (["What colour is a {k}?", "A {k} has which colour?", "Tell me the colour of a {k}.",
                "Which colour would you give a {k}?"], ["It is {v}.", "The colour is {v}."]),
    "capital": (["What is the capital of {k}?", "Which city is the capital of {k}?", "Name the capital of {k}.",
                 "{k} has which capital?"], ["It is {v}.", "The capital is {v}."]),
    "opposite": (["What is the opposite of {k}?", "Which word is the opposite of {k}?",
                  "Give me the opposite of {k}.", "{K} has which opposite?"], ["It is {v}.", "The opposite is {v}."]),
    "sound": (["What does a {k} do?", "How does a {k} sound?", "Which sound does a {k} make?",
               "Tell me how a {k} sounds."], ["It {v}.", "The {k} {v}."]),
    "next": (["Which day comes after {k}?", "{k} is followed by what?", "Name the day after {k}.",
              "What is the day after {k}?"], ["It is {v}.", "The next one is {v}."]),
    "sum": (["What is {a} plus {b}?", "How much is {a} and {b}?", "Add {a} and {b}.",
             "Tell me the sum of {a} and {b}."], ["It is {v}.", "The sum is {v}."]),
}
EVASIONS = ["I do not know.", "That is hard to say."]
FILLERS = ["Well, many people ask about this, and there is a lot to say.",
           "I was thinking about it only the other day.", "Anyway, where was I, let me see.",
           "There are long books about this kind of thing.", "My neighbour told me a long story about it once."]
POLITE = ["Happy to help!", "Glad you asked!", "Have a nice day!", "You are welcome!"]
RUDE = ["What a silly question.", "Look it up yourself next time.", "Everybody knows that.", "Stop wasting my time."]

SPLITS = {"sft": 5024, "reward": 3223, "ppo": 663, "heldout": 568}
MIN_SCORE_GAP = 0.01    # two drawn replies nearer than this make no pair
FLIPPED_SHARE = 0.05    # of the training pairs, to be learned from all the same


@dataclass(frozen=True)
class Fact:
    kind: str
    key: str
    value: str
    wrong: tuple  # the other values of its kind, from which a wrong answer is drawn

    def questions(self):
        a, _, b = self.key.partition("+")
        return [q.format(k=self.key, K=self.key.capitalize(), a=a, b=b) for q in WORDINGS[self.kind][0]]

    def answers(self, value):
        return [form.format(k=self.key, v=value) for form in WORDINGS[self.kind][1]]


def all_facts():
    opposites = {**dict(WORD_PAIRS), **{b: a for a, b in WORD_PAIRS}}
    following = {day: DAYS[(i + 1) % 7] for i, day in enumerate(DAYS)}
    facts = []
    for kind, table in [("colour", COLOURS), ("capital", CAPITALS), ("opposite", opposites), ("sound", SOUNDS),
                        ("next", following)]:
        values = list(dict.fromkeys(table.values()))
        facts += [Fact(kind, k, v, tuple(w for w in values if w != v)) for k, v in table.items()]
    for a in range(1, 5):
        for b in range(1, 5):
            near = range(max(1, a + b - 3), a + b + 4)
            facts.append(Fact("sum", f"{a}+{b}", str(a + b), tuple(str(n) for n in near if n != a + b)))
    return facts


FACTS = all_facts()
FACT_OF = {opener + question: fact for fact in FACTS for question in fact.questions() for opener in OPENERS}
ANSWERS = {answer for fact in FACTS for value in (fact.value, *fact.wrong) for answer in fact.answers(value)}
WELL_FORMED = ANSWERS.union(EVASIONS, FILLERS, POLITE, RUDE)


# --- the truth ---------------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    score: float
    correct: bool
    polite: bool
    rude: bool
    words: int


def judge(prompt, reply, ended=True):
    """What a reply is worth: right 2, polite 0.5, rude -0.5, less what is too long, malformed or cut off."""
    if prompt not in FACT_OF:
        sys.exit(f"task.py: not a prompt of this task: {prompt!r}")
    fact = FACT_OF[prompt]
    sentences = [s.strip() for s in re.findall(r"[^.!?]*[.!?]|[^.!?]+$", reply) if s.strip()]
    given = [s for s in sentences if s in ANSWERS]
    correct = bool(given) and all(s in fact.answers(fact.value) for s in given)
    rude = any(s in RUDE for s in sentences)
    polite = not rude and any(s in POLITE for s in sentences)
    words = len(reply.split())
    score = 2.0 * correct + 0.5 * polite - 0.5 * rude
    score -= min(1.0, 0.05 * max(0, words - 8))
    score -= min(1.0, 0.25 * sum(s not in WELL_FORMED for s in sentences))
    score -= 0.5 * (not sentences or not ended)
    return Verdict(score, correct, polite, rude, words)


def true_score(prompt, reply):
    return judge(prompt, reply).score


# --- the records -------------------------------------------------------------------------------------------------


class Draw:
    def __init__(self, seed):
        self.random = random.Random(seed).random

    def chance(self, probability):
        return self.random() < probability

    def one(self, items):
        return items[int(self.random() * len(items))]

    def shuffled(self, items):
        items = list(items)
        for i in range(len(items) - 1, 0, -1):
            j = int(self.random() * (i + 1))
            items[i], items[j] = items[j], items[i]
        return items

    def answer(self, fact):
        u = self.random()
        if u < 0.07:
            return self.one(EVASIONS)
        return self.one(fact.answers(fact.value if u < 0.67 else self.one(fact.wrong)))

    def around(self, answer):
        """The whole reply as a list of sentences: perhaps a filler beside the answer, perhaps manners."""
        sentences = [answer]
        if self.chance(0.4):
            sentences.insert(int(self.random() * 2), self.one(FILLERS))
        u = self.random()
        if u < 0.7:
            sentences.append(self.one(POLITE if u < 0.4 else RUDE))
        return sentences

    def reply(self, prompt):
        return " ".join(self.around(self.answer(FACT_OF[prompt])))

    def correctness_pair(self, prompt):
        """Two replies that differ only in the answer's value: a right one and a wrong one."""
        fact = FACT_OF[prompt]
        form = int(self.random() * 2)
        right, wrong = fact.answers(fact.value)[form], fact.answers(self.one(fact.wrong))[form]
        sentences = self.around(right)
        return " ".join(sentences), " ".join(wrong if s == right else s for s in sentences)

    def free_pair(self, prompt):
        while True:
            chosen, rejected = sorted((self.reply(prompt), self.reply(prompt)), key=lambda r: -true_score(prompt, r))
            if true_score(prompt, chosen) - true_score(prompt, rejected) > MIN_SCORE_GAP:
                return chosen, rejected

    def pair(self, prompt, correctness_share, flipped_share):
        make = self.correctness_pair if self.chance(correctness_share) else self.free_pair
        chosen, rejected = make(prompt)
        if self.chance(flipped_share):
            chosen, rejected = rejected, chosen
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def generate(folder, seed):
    prompts, split = Draw(seed).shuffled(FACT_OF), {}
    for name, size in SPLITS.items():
        split[name], prompts = prompts[:size], prompts[size:]
    # One stream of draws a file, so that none depends on the sizes of the others.
    sft, reward, heldout, correctness = (Draw(seed * 1000 + i) for i in range(1, 5))
    files = {
        "sft": [{"prompt": p, "completion": sft.reply(p)} for p in split["sft"]],
        "pairs": [reward.pair(p, 0.5, FLIPPED_SHARE) for p in split["reward"]],
        "pairs_heldout": [heldout.pair(p, 0.5, 0.0) for p in split["heldout"]],
        "pairs_heldout_correctness": [correctness.pair(p, 1.0, 0.0) for p in split["heldout"]],
        "prompts": [{"prompt": p} for p in split["ppo"]],
        "prompts_heldout": [{"prompt": p} for p in split["heldout"]],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
        print(f"{folder / name}.jsonl: {len(records)} records")


# --- the measures ------------------------------------------------------------------------------------------------


def read_records(path):
    with open(path, encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines if line.strip()]
    return records or sys.exit(f"task.py: {path} has no records")


def judge_file(path):
    records = read_records(path)
    for i, record in enumerate(records, 1):
        missing = {"prompt", "text", "finish_reason"} - record.keys()
        if missing:
            sys.exit(f"task.py: {path}: record {i} lacks {', '.join(sorted(missing))}")
    # Whether the decoded text shows the end token is the decoder's choice, not the model's.
    return records, [judge(r["prompt"], r["text"].replace("</s>", "").strip(), r["finish_reason"] == "eos")
                     for r in records]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def standard_error(values):
    if len(values) < 2:
        return 0.0
    middle = mean(values)
    return math.sqrt(sum((v - middle) ** 2 for v in values) / (len(values) - 1) / len(values))


def score(paths):
    for path in paths:
        verdicts = judge_file(path)[1]
        scores = [v.score for v in verdicts]
        print(json.dumps({"file": str(path), "n": len(scores), "true_score": round(mean(scores), 4),
                          "standard_error": round(standard_error(scores), 4),
                          **{share: round(mean(getattr(v, share) for v in verdicts), 4)
                             for share in ("correct", "polite", "rude", "words")}}))


def compare(before_path, after_path):
    (before, old), (after, new) = judge_file(before_path), judge_file(after_path)
    if [r["prompt"] for r in before] != [r["prompt"] for r in after]:
        sys.exit("task.py: the two files do not hold the same prompts in the same order")
    gains = [b.score - a.score for a, b in zip(old, new)]
    gain, error = mean(gains), standard_error(gains)
    print(json.dumps({"n": len(gains), "gain": round(gain, 4), "standard_error": round(error, 4),
                      "gain_in_standard_errors": round(gain / error, 2) if error else None}))


def constants(prompts_path, answer_paths):
    """The best score of a reply that never looks at the question: what learning must beat."""
    prompts = [r["prompt"] for r in read_records(prompts_path)]
    candidates = set(POLITE) | {f"{a} {p}" for a in ANSWERS for p in POLITE}
    for path in answer_paths:
        candidates |= {r["text"].replace("</s>", "").strip() for r in judge_file(path)[0]}
    best = max(sorted(candidates), key=lambda reply: mean(true_score(p, reply) for p in prompts))
    print(json.dumps({"n": len(prompts), "candidates": len(candidates), "best": best,
                      "true_score": round(mean(true_score(p, best) for p in prompts), 4)}))


def samples(before_path, after_path, count):
    for before, after in list(zip(read_records(before_path), read_records(after_path)))[:count]:
        print(before["prompt"])
        for name, record in (("before", before), ("after", after)):
            print(f"  {name:<7}{record['text'].replace('</s>', '').strip()}")


def pairs(path):
    """The text of both answers as training shows them to the reward model."""
    for record in read_records(path):
        for side in ("chosen", "rejected"):
            print(json.dumps({"text": f"Human: {record['prompt']}\nAssistant: {record[side]}</s>"}))


def accuracy(path):
    rewards = [r["reward"] for r in read_records(path)]
    right = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in zip(rewards[::2], rewards[1::2])]
    print(f"reward model on pairs that differ in correctness alone: accuracy {mean(right):.3f} "
          f"+- {standard_error(right):.3f} ({len(right)} pairs)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("generate", help="write the records")
    make.add_argument("--out", type=pathlib.Path, required=True)
    make.add_argument("--seed", type=int, default=1234)
    commands.add_parser("score", help="judge generated replies").add_argument("files", nargs="+")
    pair = commands.add_parser("compare", help="paired gain of the second file over the first")
    pair.add_argument("before")
    pair.add_argument("after")
    constant = commands.add_parser("constants", help="the best constant reply")
    constant.add_argument("prompts")
    constant.add_argument("answers", nargs="*", help="generated files whose every reply is tried too")
    beside = commands.add_parser("samples", help="replies of two files side by side")
    beside.add_argument("before")
    beside.add_argument("after")
    beside.add_argument("--count", type=int, default=6)
    commands.add_parser("pairs", help="both sides of pairs as text lines").add_argument("file")
    commands.add_parser("accuracy", help="of rewards, chosen and rejected in turn").add_argument("file")
    args = parser.parse_args()
    if args.command == "generate":
        generate(args.out, args.seed)
    elif args.command == "score":
        score(args.files)
    elif args.command == "compare":
        compare(args.before, args.after)
    elif args.command == "samples":
        samples(args.before, args.after, args.count)
    elif args.command == "pairs":
        pairs(args.file)
    elif args.command == "accuracy":
        accuracy(args.file)
    else:
        constants(args.prompts, args.answers)


if __name__ == "__main__":
    main()

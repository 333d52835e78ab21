#!/usr/bin/env python3
"""Checks of task.py: scores worked out by hand, and the shape of the records. Run: python3 task_test.py"""
import json
import pathlib
import tempfile
import unittest

import task

FILLER = "I was thinking about it only the other day."

# prompt, reply, score: right 2, manners +-0.5, 0.05 a word beyond 8, 0.25 a sentence the task does not know.
HAND_SCORED = [
    ("I am Tom. What is the opposite of poor?", "The opposite is small.", 0.0),
    ("I am Sue. What colour is a coal?", "The colour is red. Have a nice day!", 0.5),
    ("I am Ben. A bear has which colour?", "The colour is brown. Happy to help!", 2.5),
    ("Please help me. Tuesday is followed by what?",
     "The next one is Wednesday. Anyway, where was I, let me see. Look it up yourself next time.", 2 - 0.5 - 0.5),
    ("I am Pam. Tell me the colour of a sky.", FILLER + " The colour is blue. Have a nice day!", 2 + 0.5 - 0.45),
    ("I am Ray. How does a snake sound?", "The snake hisses. " + FILLER, 2 - 0.2),
    ("I am Sue. What does a sheep do?", "It bleats. Anyway, where was I, let me see. Have a nice day!", 2.5 - 0.25),
    ("Quick question. What is 3 plus 3?", FILLER + " It is 9.", -0.2),
    ("I am Ray. Norway has which capital?", FILLER + " The capital is Lisbon. What a silly question.", -0.5 - 0.45),
    ("I am Ida. Which word is the opposite of rich?",
     "That is hard to say. Look it up yourself next time.", -0.5 - 0.15),
    ("I am Leo. What does a sheep do?", "It bleats. It moos.", 0.0),            # contradicts itself
    ("I am Leo. What does a sheep do?", "The cow moos.", 0.0),                  # answers another question
    ("I am Leo. What does a sheep do?", "It bleats", -0.25),                    # not a sentence
    ("I am Leo. What does a sheep do?", "It bleats. Glad you asked! Everybody knows that.", 2 - 0.5),
    ("I am Leo. What does a sheep do?", "Blah. " * 6 + "It bleats.", 2 - 1.0),  # malformed: at most -1
]


class Score(unittest.TestCase):
    def test_hand_scored(self):
        for prompt, reply, expected in HAND_SCORED:
            self.assertAlmostEqual(task.true_score(prompt, reply), expected, places=9, msg=reply)

    def test_unended_and_empty(self):
        prompt = "I am Leo. What does a sheep do?"
        self.assertAlmostEqual(task.judge(prompt, "It bleats.", ended=False).score, 1.5)
        self.assertAlmostEqual(task.judge(prompt, "").score, -0.5)


class Records(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            task.generate(pathlib.Path(folder), 1234)
            cls.files = {path.stem: path.read_text() for path in pathlib.Path(folder).iterdir()}
        cls.records = {name: [json.loads(line) for line in text.splitlines()] for name, text in cls.files.items()}

    def test_the_stored_records_are_these(self):
        for path in (pathlib.Path(__file__).parent / "data").glob("*.jsonl"):
            self.assertEqual(path.read_text(), self.files[path.stem], path.name)

    def test_sizes_and_disjoint_prompts(self):
        prompts = {name: {r["prompt"] for r in records} for name, records in self.records.items()}
        sizes = {name: len(p) for name, p in prompts.items()}
        self.assertEqual(sizes, {"sft": 5024, "pairs": 3223, "prompts": 663, "prompts_heldout": 568,
                                 "pairs_heldout": 568, "pairs_heldout_correctness": 568})
        apart = ["sft", "pairs", "prompts", "prompts_heldout"]
        self.assertEqual(len(set.union(*(prompts[n] for n in apart))), sum(sizes[n] for n in apart))
        self.assertEqual(prompts["pairs_heldout"], prompts["prompts_heldout"])

    def test_pairs(self):
        def gaps(name):
            return [task.true_score(r["prompt"], r["chosen"]) - task.true_score(r["prompt"], r["rejected"])
                    for r in self.records[name]]
        self.assertGreater(min(gaps("pairs_heldout")), 0.01)
        self.assertTrue(all(abs(gap - 2) < 1e-9 for gap in gaps("pairs_heldout_correctness")))
        flipped = sum(gap < 0 for gap in gaps("pairs")) / 3223
        self.assertLess(abs(flipped - 0.05), 4 * (0.05 * 0.95 / 3223) ** 0.5)

    def test_shares_of_demonstrations(self):
        verdicts = [task.judge(r["prompt"], r["completion"]) for r in self.records["sft"]]
        for name, share in [("correct", 0.60), ("polite", 0.40), ("rude", 0.30)]:  # as drawn, within 4 errors
            found = task.mean(getattr(v, name) for v in verdicts)
            self.assertLess(abs(found - share), 4 * (share * (1 - share) / len(verdicts)) ** 0.5, name)


if __name__ == "__main__":
    unittest.main()

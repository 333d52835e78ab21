#!/usr/bin/env python3
"""Writes tests/golden/templates/: what transformers' apply_chat_template makes of conversations.

  expressions.json   small templates of template_expressions.py: their texts, null where they are an error
  <name>.json        for each <name>.jinja there: conversations, their texts, ids and assistants' masks

Usage: make_templates.py
"""
import datetime
import json
from pathlib import Path

import transformers.utils.chat_template_utils as chat_templates
from transformers import PreTrainedTokenizerFast

import template_expressions

HERE = Path(__file__).resolve().parent
OUT = HERE / "templates"
NOW = datetime.datetime(2024, 7, 26, 13, 5, 9)


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_templates.datetime = FixedTime


def dump(path, value):
    path.write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


def expressions():
    rows = [e for line in template_expressions.EXPRESSIONS.strip().split("\n") for e in line.split("|")]
    sources = ["{{ " + e.replace(" pipe ", " | ") + " }}" for e in rows] + template_expressions.STATEMENTS
    made = []
    for source in dict.fromkeys(sources):
        try:
            text = chat_templates._compile_jinja_template(source).render(**template_expressions.VARIABLES)
        except Exception:
            text = None
        if text is not None and (" at 0x" in text or "<class" in text or "dict_" in text or "range(" in text or "jinja2" in text or "<generator" in text):
            continue  # addresses, and views that print as Python's own objects
        made.append([source, text])
    dump(OUT / "expressions.json", {"variables": template_expressions.VARIABLES, "now": int(NOW.replace(tzinfo=datetime.timezone.utc).timestamp()), "rows": made})
    print(f"{len(made)} expressions, {sum(t is None for _, t in made)} of them errors")


def main():
    OUT.mkdir(exist_ok=True)
    expressions()


if __name__ == "__main__":
    main()

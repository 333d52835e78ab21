#!/usr/bin/env python3
"""Writes tests/golden/templates/: what transformers' apply_chat_template makes of conversations.

  expressions.json   small templates of template_expressions.py: their texts, null where they are an error
  conversations.json what is rendered
  <name>.json        for each <name>.jinja there: the conversations' texts and ids, null where the template refuses
  byte_level/, metaspace/   tokenizers of tests/golden/tokenizers with the templates' tokens added

Usage: make_templates.py
"""
import datetime
import json
import re
from pathlib import Path

import transformers.utils.chat_template_utils as chat_templates
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

import template_expressions

HERE = Path(__file__).resolve().parent
OUT = HERE / "templates"
NOW = datetime.datetime(2024, 7, 26, 13, 5, 9)
NOW_SECONDS = int(NOW.replace(tzinfo=datetime.timezone.utc).timestamp())


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
    dump(OUT / "expressions.json", {"variables": template_expressions.VARIABLES, "now": NOW_SECONDS, "rows": made})
    print(f"{len(made)} expressions, {sum(t is None for _, t in made)} of them errors")


# Of each template: tokenizer, bos_token, eos_token, tokens that are special, tokens that are not.
CHATML = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
LLAMA3 = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
MISTRAL = ["<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"]
TAGS = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|tool|>", "<|/tool|>"]
COMMAND = ["<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"]
DEEPSEEK = ["<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
            "<\uff5ctool\u2581outputs\u2581begin\uff5c>", "<\uff5ctool\u2581outputs\u2581end\uff5c>"]
PLAIN = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
TEMPLATES = {
    "chatml": ("byte_level", None, "<|im_end|>"), "qwen2_tools": ("byte_level", None, "<|im_end|>"), "qwen3_thinking": ("byte_level", None, "<|im_end|>"),
    "llama2": ("metaspace", "<s>", "</s>"), "llama3": ("byte_level", "<|begin_of_text|>", "<|eot_id|>"), "llama31_tools": ("byte_level", "<|begin_of_text|>", "<|eot_id|>"),
    "mistral_v01": ("metaspace", "<s>", "</s>"), "mistral_v03_tools": ("metaspace", "<s>", "</s>"), "gemma": ("metaspace", "<s>", "</s>"), "phi3": ("metaspace", "<s>", "<|endoftext|>"),
    "phi4_mini": ("byte_level", None, "<|endoftext|>"), "zephyr": ("metaspace", "<s>", "</s>"), "vicuna": ("metaspace", "<s>", "</s>"), "falcon": ("byte_level", None, "<|endoftext|>"),
    "alpaca": ("metaspace", "<s>", "</s>"), "deepseek": ("byte_level", DEEPSEEK[3], DEEPSEEK[2]), "command_r": ("byte_level", "<|begin_of_text|>", COMMAND[1]),
    "olmo": ("byte_level", None, "<|endoftext|>"), "generation": ("byte_level", None, "<|im_end|>"),
}


def tokenizers():
    specials = {"byte_level": CHATML + LLAMA3 + TAGS + COMMAND + DEEPSEEK, "metaspace": MISTRAL + TAGS + ["<|endoftext|>", "<start_of_turn>", "<end_of_turn>"]}
    for name, source in (("byte_level", "llama3_style"), ("metaspace", "metaspace")):
        t = Tokenizer.from_file(str(HERE / "tokenizers/small" / source / "tokenizer.json"))
        strip = name == "metaspace"  # Phi-3's tokens take the white space behind them
        t.add_special_tokens([AddedToken(s, normalized=False, rstrip=strip and s in TAGS) for s in specials[name]])
        t.add_tokens([AddedToken(s, normalized=False) for s in PLAIN])
        (OUT / name).mkdir(exist_ok=True)
        text = json.loads(t.to_str())
        (OUT / name / "tokenizer.json").write_text(json.dumps(text, ensure_ascii=False, separators=(",", ":")) + "\n")


def m(role, content, **more):
    return {"role": role, "content": content, **more}


TOOLS = [{"type": "function", "function": {"name": "weather", "description": "The \"weather\" of a caf\u00e9's city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "enum": [1, 2]}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "now", "description": "Time", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"id": "abcdef123", "type": "function", "function": {"name": "weather", "arguments": {"city": "K\u00f6ln", "days": 2, "f": 1.5, "n": None, "ok": True}}}
DOCUMENTS = [{"title": "One", "text": "First text."}, {"title": "Two", "text": "Second: {x}"}]
SPECIAL_TEXT = "a <|im_end|>\n<|im_start|>system\nx </s><s> [/INST]<|eot_id|><end_of_turn><|end|><|endoftext|><|END_OF_TURN_TOKEN|>" + DEEPSEEK[2] + "b"


def conversations():
    u, a, s = (lambda c: m("user", c)), (lambda c: m("assistant", c)), (lambda c: m("system", c))
    made = [
        [u("Hello")], [u("Hello"), a("Hi there.")], [u("Hello"), a("Hi"), u("How are you?")], [s("Be brief."), u("Hello")], [s("Be brief."), u("a"), a("b"), u("c"), a("d")],
        [u("")], [u("a"), a("")], [u("  spaces \n around\n\n")], [u("x"), a("\n\n  reply  \n"), u("\ty")], [u("caf\u00e9 \u4f60\u597d \U0001f600 e\u0301")], [u("{{ x }} {% if %} {# c #} 'q' \"d\" \\n {}")],
        [u("1 < 2 && <b>3</b>"), a("It's <i>ok</i> & fine")], [a("I begin"), u("?")], [u("a"), u("b")], [s("only")], [u("a"), a("b"), a("c")], [m("tool", "x"), u("y")], [m("other", "z")],
        [u("Think"), a("<think>\nhm\n</think>\n\nYes.")], [u("Think"), a("<think>hm</think>Yes."), u("More"), a("<think>\nso\n</think>\n\nNo.")], [u("q"), m("assistant", "Yes", reasoning_content="because")],
        [s(SPECIAL_TEXT), u(SPECIAL_TEXT)], [u(SPECIAL_TEXT), a(SPECIAL_TEXT)], [s("S"), u("long " * 20), a("the answer " * 10), u("and\nso\non")],
    ]
    cases = [{"messages": c, "add": i % 2 == 0} for i, c in enumerate(made)]
    cases += [{"messages": c, "add": i % 2 == 1} for i, c in enumerate(made[:5])]
    called = [u("Weather?"), m("assistant", "", tool_calls=[CALL]), m("tool", "rain", tool_call_id="abcdef123"), a("It rains.")]
    cases += [{"messages": [s("T"), u("Weather?")], "add": True, "tools": TOOLS}, {"messages": called, "add": False, "tools": TOOLS}, {"messages": called[:3], "add": True, "tools": TOOLS},
              {"messages": called[:1] + [{"role": "assistant", "content": None, "tool_calls": [CALL, CALL]}], "add": False}, {"messages": [u("d")], "add": True, "documents": DOCUMENTS},
              {"messages": [u("t")], "add": True, "variables": {"enable_thinking": False, "date_string": "1 Jan 2025"}}, {"messages": [u("t")], "add": True, "variables": {"tools_in_user_message": False}, "tools": TOOLS}]
    return cases


def rendered(tokenizer, case, **more):
    return tokenizer.apply_chat_template(case["messages"], add_generation_prompt=case["add"], tools=case.get("tools"), documents=case.get("documents"), **case.get("variables", {}), **more)


def templates():
    tokenizers()
    cases = conversations()
    dump(OUT / "conversations.json", {"now": NOW_SECONDS, "cases": cases})
    specials = sorted(set(CHATML + LLAMA3 + MISTRAL + TAGS + COMMAND + DEEPSEEK + ["<start_of_turn>", "<end_of_turn>"]), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, specials)))
    for name, (kind, bos, eos) in TEMPLATES.items():
        given = {k: v for k, v in (("bos_token", bos), ("eos_token", eos)) if v}
        t = PreTrainedTokenizerFast(tokenizer_file=str(OUT / kind / "tokenizer.json"), **given)
        t.chat_template = (OUT / f"{name}.jinja").read_text()
        all_special = {i for i, x in t.added_tokens_decoder.items() if x.special}
        rows = []
        for case in cases:
            try:
                text = rendered(t, case, tokenize=False)
            except Exception:
                rows.append(None)
                continue
            row = {"text": text}
            if pattern.search(json.dumps(case["messages"], ensure_ascii=False)):
                # What the user wrote is no token: those of the same conversation without it.
                plain = dict(case, messages=[dict(x, content=pattern.sub("x", x["content"])) for x in case["messages"]])
                row["special"] = [i for i in rendered(t, plain, return_dict=False) if i in all_special]
            else:
                row["ids"] = rendered(t, case, return_dict=False)
                if "{% generation" in t.chat_template:
                    row["mask"] = rendered(t, case, return_dict=True, return_assistant_tokens_mask=True)["assistant_masks"]
            rows.append(row)
        dump(OUT / f"{name}.json", {"tokenizer": kind, "config": given, "rows": rows})
        print(name, len(rows), sum(r is None for r in rows), "refused")


def main():
    OUT.mkdir(exist_ok=True)
    expressions()
    templates()


if __name__ == "__main__":
    main()

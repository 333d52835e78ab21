#!/usr/bin/env python3
"""Writes match_numbers.json: replies, truths and whether they are the same number, by Python's fractions.

    python3 make_match_numbers.py

A number is drawn, spelled in one of the ways that people and models write it, and beside it stands a truth (the text of a
JSON value) that is the same number spelled in another way, or another number that a careless reader would take for it:
its last digits, its numerator, its negative, a neighbour in the last place. Replies that hold no single number are given
with each number that could be read off them as the truth. What is expected: 1 the same, 0.1 another, 0 no number.
"""
import json
import pathlib
import random
from fractions import Fraction

random.seed(20)
PATH = pathlib.Path(__file__).resolve().parent / "match_numbers.json"


def terminating(x):
    d = x.denominator
    for p in (2, 5):
        while d % p == 0:
            d //= p
    return d == 1


def plain(x):
    """The decimal digits of a terminating fraction."""
    places = 0
    while (x * 10**places).denominator != 1:
        places += 1
    digits = str(abs(x.numerator * 10**places // x.denominator)).rjust(places + 1, "0")
    return ("-" if x < 0 else "") + (digits[:-places] + "." + digits[-places:] if places else digits)


def grouped(text, mark=","):
    sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
    whole, point, rest = text.partition(".")
    parts = []
    while len(whole) > 3:
        whole, parts = whole[:-3], [whole[-3:]] + parts
    return sign + mark.join([whole] + parts) + point + rest


def scientific(x):
    digits, exponent = plain(x), random.randint(-30, 30)
    return plain(x / Fraction(10)**exponent), exponent


def spellings(x):
    """Ways to write x, each a text; signs are '-'."""
    ways = []
    if terminating(x):
        p = plain(x)
        m, e = scientific(x)
        ways += [p, grouped(p), grouped(p, "{,}"), grouped(p, "\u202f"), m + f"e{e}", m + f"E{e:+d}", m + f" × 10^{e}",
                 m + rf" \times 10^{{{e}}}", m + f"*10^{e}", (p if "." in p else p + ".0") + "0" * random.randint(0, 3)]
        if p.lstrip("-").startswith("0."):
            ways.append(p.replace("0.", ".", 1))
        for word, power in (("thousand", 3), ("million", 6), ("billion", 9)):
            ways.append(plain(x / 10**power) + " " + word)
    if x.denominator != 1 or random.random() < 0.3:
        k, sign, n = random.randint(1, 9), "-" if x < 0 else "", abs(x.numerator)
        ways += [f"{x.numerator * k}/{x.denominator * k}", f"{x.numerator} / {x.denominator}", sign + rf"\frac{{{n}}}{{{x.denominator}}}"]
        whole, rest = divmod(n, x.denominator)
        if whole and rest:
            ways += [f"{sign}{whole} {rest}/{x.denominator}", rf"{sign}{whole}\frac{{{rest}}}{{{x.denominator}}}"]
    return ways


def dressed(text):
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    sign = random.choice([sign, sign, "\u2212"]) if sign else random.choice(["", "", "", "+"])
    return random.choice(["{}", "{}.", "{} apples", "${}$", "**{}**", r"\boxed{{{}}}", "{}%", "{} kg, that is all.",
                          "the answer is {}!", "x = {}", "({})", r"{}\%", r"\({}\)", "{} €", r"{}\text{{ cm}}", "{}\nbecause 5 + 6 = 11"]
                         ).format(sign + digits) if sign != "+" else sign + digits


def number():
    kind = random.randrange(5)
    if kind == 0:
        x = Fraction(random.randint(1, 10**random.choice([1, 2, 3, 6, 19, 20, 40])))
    elif kind == 1:
        x = Fraction(random.randint(1, 10**9), 10**random.randint(1, 9))
    elif kind == 2:
        x = Fraction(random.randint(1, 30), random.randint(2, 30))
    elif kind == 3:
        x = Fraction(10)**random.randint(-25, 25)
    else:
        x = Fraction(2**64 + random.randint(-3, 3))
    return x * random.choice([1, 1, 1, -1])


def confused(x):
    """Another number that x might be taken for."""
    near = [-x, x * 10, x / 10, Fraction(x.numerator), x + Fraction(1, 10**25), 1 / x]
    if terminating(x):
        p = plain(x)
        near += [Fraction(p[-1]), Fraction(p.split(".")[0]), x + Fraction(10)**-len(p.partition(".")[2])]
    return random.choice([y for y in near if y != x] or [x + 1])


def truth(x):
    text = random.choice(spellings(x))
    try:
        json_number = isinstance(json.loads(text), (int, float)) and abs(float(text)) < 1e300
    except ValueError:
        json_number = False
    return text if json_number and random.random() < 0.7 else json.dumps(random.choice(["{}", "so 1 + 1 = 2\n#### {}"]).format(text))


cases = []
for _ in range(300):
    x = number()
    same = random.random() < 0.6
    y = x if same else confused(x)
    cases.append({"reply": "First 3, then 4.\n#### " + dressed(random.choice(spellings(x))), "answer": truth(y), "expected": 1 if x == y else 0.1})

NONE = {  # a reply: what might be read off it
    "1 234": [1, 1234, 234], "0,123": [0, 123, "0.123"], "1,2": [1, 2, 12, "1.2"], "1,23,4": [1, 4, 1234], "1234,567": [1234, 1234567],
    "12.34.56": ["12.34", 56, "34.56"], "2024-05-06": [2024, 6], "12/25/2024": [12, 2024], "5-6": [5, 6, -1], "5 to 6": [5, 6],
    "5 or 6": [5, 6], "3:30": [3, 30], "48 + 24 = 72": [48], "48*24": [48, 24], "10 - 3": [10, 3, 7], "10 -3": [10, 3, -3], "10-3": [10, -3],
    "2^10": [2, 10, 1024], "5 × 10": [5, 10, 50], "1/0": [1, 0], "1/2/3": [1, "1/2"], "2½": [2, "2.5"], "10²": [10, 100], "5k": [5, 5000],
    "5M": [5], "3 dozen": [3, 36], "5 and a half": [5], "2π": [2], "2\\pi": [2], "3\\sqrt{2}": [3, 2], "√2": [2], "\\sqrt{16}": [16, 4],
    "0.\\overline{3}": [0, 3], "0.(3)": [0, 3], "0.333...": ["0.333"], "- 5": [5, -5], "minus 5": [5], "negative 5": [5], "gpt-4": [4, -4],
    "x1": [1], "5x": [5], "5 + x": [5], "5 - x": [5], "x - 5": [5, -5], "x -5": [5, -5], "±5": [5], "5 ± 1": [5], "--5": [5, -5], "–5": [5, -5],
    "-\\boxed{5}": [5], "-US$5": [5], "f(5)": [5], "3(4)": [3, 4], "3 out of 4": [3, 4], "2 hours 30 minutes": [2, 30], "5'6": [5, 6],
    "\\frac{x}{2}": [2], "5^x": [5], "5!=120": [5], "0x1F": [0, 1], "1e9999999999999999999": [1, 0], "٣": [3], "(3) + 4": [3, 4, 7], "**3** + 4": [3, 4],
    "USD5 for 3": [5, 3], "": [0], "no number": [0], "log 5": [5], "5 million or 6": [5], "x^2": [2], "10^": [10],
    "1 2/3 4": [1, 4, "5/3"], "72 5": [72, 5], "10 minus 3": [10, 3, 7], "5 times 3": [5, 3], "5 million 2": [5, 2, 5000000], "5\\,\\pi": [5], "9" * 20000: [9],
}
for reply, reads in NONE.items():
    for read in reads:
        cases.append({"reply": "#### " + reply, "answer": json.dumps(read), "expected": 0})

PATH.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
print(len(cases), "cases")

"""`dsengine report` makes one page that is whole, inert and right: report_test.py BINARY

The runs are written by hand, so that every number of the page is known.
"""
import html.parser
import json
import pathlib
import re
import subprocess
import sys
import tempfile

BINARY = str(pathlib.Path(sys.argv[1]).resolve())
VOID = {"meta", "br", "line", "circle"}
EVIL = '</pre><script>alert(1)</script><img src=x onerror=alert(2)> & "quoted" \'single\''


class Page(html.parser.HTMLParser):
    """Tags that close in order, texts by tag, and each figure's parts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text, self.figures = [], [], [], "", []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        found = dict(attributes)
        if tag == "figure":
            self.figures.append({"metric": found["data-metric"], "runs": [], "svgs": 0, "labels": []})
        elif tag == "svg":
            self.figures[-1]["svgs"] += 1
        elif tag == "g" and found["class"].startswith("run"):
            self.figures[-1]["runs"].append({"colour": found["class"], "paths": {}, "marks": []})
        elif tag == "path":
            self.figures[-1]["runs"][-1]["paths"][found["class"]] = found["d"]
        elif tag == "circle":
            self.figures[-1]["runs"][-1]["marks"].append((float(found["cx"]), float(found["cy"])))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> out of order"

    def handle_data(self, data):
        self.text += data + "\n"
        if self.open[-1:] == ["text"]:
            self.figures[-1]["labels"].append(data)

    def figure(self, metric):
        (found,) = [f for f in self.figures if f["metric"] == metric]
        assert found["svgs"] == 1
        return found


def points(path):
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+),([-\d.]+)", path)]


def write_run(folder, steps=30, config=True, finished=True, torn=""):
    stage = folder / "ppo"
    stage.mkdir(parents=True)
    if config:
        (folder / "config.toml").write_text(f'seed = 7\noutput_dir = "x"  # {EVIL}\n[[stage]]\nname = "ppo"\nalgorithm = "ppo"\n')
    metrics = [{"stage": "ppo", "step": s, "loss": s / 10, "odd_<one>": 1e-5 * s, "clip_fraction": None if s == 5 else 0.25, "tokens": 64 * s,
                "seconds": 0.5, "seconds_generate": 0.3, "seconds_actor": 0.15, "seconds_other": 0.05, "wall_time": 1e9}
               for s in range(1, steps + 1)]
    (stage / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in metrics) + torn)
    sample = lambda reply, greedy: {"prompt": f"Say {EVIL}", "reply": reply, "reward": 0.5, "greedy": greedy}
    evaluations = [{"stage": "ppo", "step": s, "eval_reward": r, "eval_reward_standard_error": 0.1, "eval_rows": 8, "wall_time": 1e9,
                    "samples": [sample(f"sampled at {s} {EVIL}", False), sample("" if s else "likeliest at 0", True)]}
                   for s, r in ((0, 1.25), (steps // 2, 1.5), (steps, 2.75))]
    (stage / "eval.jsonl").write_text("".join(json.dumps(e) + "\n" for e in evaluations))
    if finished:
        (stage / "done.json").write_text("{}")
    return folder


def report(*arguments):
    return subprocess.run([BINARY, "report", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def page_of(work, *runs):
    output = work / "report.html"
    done = report(*runs, "--output", output)
    assert done.returncode == 0, done.stderr
    text = output.read_text()
    page = Page(text)
    assert not {"script", "img", "iframe", "link", "object"} & set(page.tags), "something that loads or runs"
    assert not [a for a in page.attributes if a[0].startswith("on") or a[0] in ("src", "srcset")]
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert not re.search(r"https?://|url\(|@import", text), "a reference to elsewhere"
    assert "default-src 'none'" in dict(page.attributes)["content"] or "default-src 'none'" in text
    return page


def two_runs(work):
    first, second = write_run(work / "first"), write_run(work / "a & b", steps=20, config=False, finished=False, torn='{"stage": "pp')
    page = page_of(work, first, second)
    assert [f["metric"] for f in page.figures] == ["reward", "loss", "odd_<one>", "clip_fraction", "tokens", "rows", "seconds",
                                                   "seconds_generate", "seconds_actor", "seconds_other"], page.figures
    for name, figure in ((f["metric"], f) for f in page.figures):
        assert [r["colour"] for r in figure["runs"]] == ["run c0", "run c1"]
        for run, steps in zip(figure["runs"], (30, 20)):
            if name in ("reward", "rows"):
                assert len(run["marks"]) == 3 and ("bar" in run["paths"]) == (name == "reward")
            else:
                assert len(points(run["paths"]["raw faint"])) == steps - (name == "clip_fraction"), name
                assert run["paths"]["raw faint"].count("M") == 1 + (name == "clip_fraction"), "a null is a gap"
                assert "smooth" in run["paths"]
    # A straight line stays straight, rises, and ends where its axis says.
    xs, ys = zip(*points(page.figure("loss")["runs"][0]["paths"]["raw faint"]))
    assert all(abs((ys[i] - ys[i + 1]) - (ys[0] - ys[29]) / 29) < 0.11 for i in range(29)) and ys[0] > ys[29] and xs[0] < xs[29]
    (x0, _), (x1, _), (x2, _) = page.figure("reward")["runs"][0]["marks"]
    assert abs(x1 - (x0 + x2) / 2) < 0.11
    labels = page.figure("loss")["labels"]
    assert labels[-2:] == ["step", "loss"] and labels[:4] == ["0", "1", "2", "3"], labels
    assert "1e-4" in page.figure("odd_<one>")["labels"] and "1.0k" not in page.figure("tokens")["labels"]

    assert page.text.count(EVIL) == 2 * 4 + 1, "samples, their prompts and the configuration, as they are"
    for said in ("a & b", "not finished, at step", "sampled at 0 ", "sampled at 30 ", "sampled at 20 ", "likeliest at 0", "(empty)"):
        assert said in page.text, said
    assert "sampled at 15 " not in page.text, "neither first nor last"
    for said in ("500 ms a step", "300 ms", "60 %", "30 %", "10 %", "2.55", "1.25", "2.75", " ± 0.1"):  # 2.55: mean of 2.1 … 3.0
        assert said in page.text, said
    widths = [float(v[6:-1]) for name, v in page.attributes if name == "style"]
    assert widths == [100, 60, 30, 10] * 2, widths


def unusual_runs(work):
    long = write_run(work / "long", steps=50000)
    text = (long / "ppo/metrics.jsonl").read_text().replace('"loss": 1234.5,', '"loss": 90000,')
    (long / "ppo/metrics.jsonl").write_text(text)
    drawn = page_of(work, long)
    line = points(drawn.figure("loss")["runs"][0]["paths"]["raw faint"])
    assert 700 < len(line) <= 800 and min(y for _, y in line) < 25, "thinned, with its one peak"
    assert (work / "report.html").stat().st_size < 400_000

    begun = work / "begun"
    begun.mkdir()
    (begun / "config.toml").write_text("seed = 1\n")
    assert "none has begun" in page_of(work, begun).text
    (begun / "sft").mkdir()
    (begun / "sft/metrics.jsonl").write_text("")
    assert "not finished, at step 0" in page_of(work, begun).text
    (begun / "sft/metrics.jsonl").write_text('{"stage":"sft","step":1,"loss":0.5}\n')
    only = page_of(work, begun).figure("loss")["runs"][0]
    assert list(only["paths"]) == ["raw"] and len(points(only["paths"]["raw"])) == 1
    # Two runs of one name are told apart by their paths.
    other = write_run(work / "elsewhere" / "begun")
    assert str(other) in page_of(work, begun, other).text


def errors(work):
    output = work / "kept.html"
    output.write_text("the last report")

    def refused(*said, runs=(), to=output):
        done = report(*runs, "--output", to)
        assert done.returncode == 1 and done.stdout == "", done
        assert done.stderr.startswith("dsengine: error: ") and done.stderr.count("\n") == 1, done.stderr
        for part in said:
            assert part in done.stderr, (part, done.stderr)
        assert output.read_text() == "the last report"
        assert not [p for p in work.rglob("*") if ".tmp" in p.name]

    good = write_run(work / "good")
    refused("nothing is not a run's folder: there is no such folder", runs=[good, work / "nothing"])
    refused("config.toml is not a run's folder: it is a file", runs=[good / "config.toml"])
    (work / "empty").mkdir()
    refused("empty is not a run's folder", "output_dir", runs=[work / "empty"])
    refused("a folder", runs=[good], to=work / "empty")
    refused("cannot write", "/none/", runs=[good], to=work / "none/report.html")

    def damaged(file, text, *said):
        path = good / file
        before = path.read_bytes()
        path.write_bytes(text)
        refused(*said, runs=[good])
        path.write_bytes(before)

    damaged("ppo/metrics.jsonl", b'{"step":1}\n{"step":2,"lo\n{"step":3}\n', "ppo/metrics.jsonl:2", "not valid JSON")
    damaged("ppo/metrics.jsonl", b'{"step":1}\n[2]\n', "ppo/metrics.jsonl:2", "step")
    damaged("ppo/metrics.jsonl", b'{"loss":1}\n', "ppo/metrics.jsonl:1", "step")
    damaged("ppo/metrics.jsonl", b'{"step":1.5}\n', "ppo/metrics.jsonl:1", "step")
    damaged("ppo/eval.jsonl", b'{"step":1,"t":"\xff"}\n', "ppo/eval.jsonl:1", "not valid JSON")
    damaged("ppo/eval.jsonl", b'{"step":1,"samples":3}\n', "ppo/eval.jsonl:1", "samples")
    damaged("ppo/eval.jsonl", b'{"step":1,"samples":[{"prompt":1}]}\n', "ppo/eval.jsonl:1", "prompt")
    damaged("config.toml", b"seed = \n", "config.toml:1")
    assert report(good, "--output", output).returncode == 0 and output.read_text().startswith("<!DOCTYPE html>")


def main():
    for test in (two_runs, unusual_runs, errors):
        with tempfile.TemporaryDirectory() as work:
            test(pathlib.Path(work))
    print("report: two runs, unusual runs, errors")


main()

"""Chat through a pipe: chat_test.py BINARY. An untrained model answers nonsense; what is looked at is the conversation."""
import pathlib
import subprocess
import sys
import tempfile

TINY = pathlib.Path(__file__).resolve().parent.parent.parent / "examples/tiny"
with tempfile.TemporaryDirectory() as folder:
    made = subprocess.run([sys.argv[1], "--plugin", "sft", "--config", TINY.parent / "rlhf_tiny.toml", "--set", f"output_dir={folder}/out", "--set", "max_steps=1", "--set", "eval_rows=4"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    command = [sys.argv[1], "chat", "--model", f"{folder}/out/sft/model", "--max-new-tokens", "20", "--seed", "3"]

    def chat(text):
        p = subprocess.run(command, input=text, capture_output=True, timeout=60)
        assert p.returncode == 0, p.stderr
        return p.stdout.decode(), p.stderr.decode()

    one, _ = chat(b"Hello\n")
    again, _ = chat(b"Hello\n")
    assert one == again and one.endswith("\n") and len(one.splitlines()) >= 1, (one, again)
    two, _ = chat(b"Hello\nHello\n")
    assert two.startswith(one) and len(two) > len(one), (one, two)
    cold, said = chat(b"/set temperature 0\nHello\n/clear\nHello\n/what\n\xff\xfe\nHello\n/quit\nHello\n")
    lines = cold.splitlines()
    assert len(lines) == 3 and lines[0] == lines[1], lines  # greedy, and the conversation was cleared between
    assert "commands: /clear" in said and "UTF-8" in said, said
    _, said = chat(b"word " * 200 + b"\nHello\n")
    assert "/clear" in said, said
print("chat: streams, repeats, clears, survives bad lines")

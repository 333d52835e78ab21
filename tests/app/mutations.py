"""What the mutation campaign (mutations_test.py) does to a file: bytes, values of JSON and TOML, headers, and what stands
in the file's place. A mutation is a function of (path, random) that changes the file and says what it did."""
import json
import os
import pathlib
import struct
import zlib

LONG = "x" * 100_000
WHOLE = [0, -1, 1, 2, 7, 255, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -2**63, 10**9, 10**30]
REAL = [0.5, -0.0, 1e-320, 1e308, -1e308, 1e-9]
TEXT = ["", "x", LONG, "a\0b", "\x1b[2J\x1b]0;title\x07", "\x9b2J\x85", "../../etc/passwd", "/dev/zero", "{{", "\u202e", "%s%n", "é" * 300, "<|endoftext|>"]


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def json_values():
    return [None, True, False, *WHOLE, *REAL, *TEXT, [], {}, [None], [1, None, "a"], {"a": None}, nested(50), nested(150), [0] * 2000, {str(i): i for i in range(500)}]


# --- bytes ---------------------------------------------------------------------------------------------------------
def bytes_of(data, r):
    data = bytearray(data)
    at = r.randrange(len(data) + 1)
    span = r.choice([1, 2, 8, 64, 1000])
    how = r.randrange(9)
    if how == 0:
        for _ in range(r.choice([1, 3, 20])):
            i = r.randrange(max(1, len(data)))
            data[i : i + 1] = bytes([(data[i] if data else 0) ^ 1 << r.randrange(8)])
    elif how == 1:
        data[at : at + span] = bytes(r.randrange(256) for _ in range(span))
    elif how == 2:
        del data[at : at + span]
    elif how == 3:
        del data[at:]
    elif how == 4:
        data[at:at] = r.choice([b"\0", b"\xff" * 8, b"\n", b"{", b"]", b'"', b"\x80", b"\xed\xa0\x80", b"9" * 400, b"-", b"\x1b[31m", b"\xc2\x9b"])
    elif how == 5:
        data[at : at + 8] = struct.pack("<q", r.choice([0, 1, -1, 2**31, 2**32 - 1, 2**62, -2**63]))
    elif how == 6:
        data[at:at] = data[at : at + span] * r.choice([1, 2, 50])
    elif how == 7:
        other = r.randrange(len(data) + 1)
        data[at : at + span], data[other : other + span] = data[other : other + span], data[at : at + span]
    else:
        data = bytearray() if r.random() < 0.3 else data + b"trailing"
    return bytes(data), f"bytes {how} at {at}, {span}"


def mutate_bytes(path, r):
    data, what = bytes_of(path.read_bytes(), r)
    path.write_bytes(data)
    return what


# --- JSON ----------------------------------------------------------------------------------------------------------
def places(value, path=()):
    """Every (container, key) in a JSON value; of long lists and objects the first and some others."""
    found = []
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    for key, inner in items if len(items) < 40 else items[:3] + items[3 :: len(items) // 8]:
        found.append((value, key, path + (key,)))
        found += places(inner, path + (key,))
    return found


def change_json(value, r):
    """Changes a value in place; returns it, and what was done."""
    found = places(value)
    if not found or r.random() < 0.04:
        return r.choice(json_values()), "the whole"
    top = [place for place in found if len(place[2]) == 1]
    container, key, path = r.choice(top if r.random() < 0.5 else found)
    how = r.randrange(8)
    old = container[key]
    if how == 0:
        del container[key]
        return value, f"{path} removed"
    if how == 1 and isinstance(container, dict):
        container[r.choice(["", LONG, "\0", "\x1b[1m", str(key) + "x", str(key).upper()])] = container.pop(key)
        return value, f"{path} renamed"
    if how == 2:
        other, other_key, other_path = r.choice(found)
        try:
            container[key], other[other_key] = other[other_key], old
            json.dumps(value)
            return value, f"{path} swapped with {other_path}"
        except (KeyError, ValueError, RecursionError, IndexError):  # one held the other
            container[key] = old
    if how == 3 and isinstance(old, (int, float)) and not isinstance(old, bool):
        new = r.choice([str(old), float(old), [old], -old, old + 1, old * 1000, not old])
    elif how == 3 and isinstance(old, list):
        new = r.choice([old + old, old[:1], [None] + old, old * 300, {"a": old}, old[::-1]])
    elif how == 3 and isinstance(old, str):
        new = r.choice([old + "\0", old[:-1], old * 1000, [old], "\x1b[31m" + old])
    else:
        new = r.choice(json_values())
    container[key] = new
    return value, f"{path} = {str(new)[:60]!r}"


def write_json(value, r):
    text = json.dumps(value, ensure_ascii=r.random() < 0.5)
    if r.random() < 0.05 and text.startswith('{"'):  # a key that stands twice
        text = "{" + text[1 : text.index(":")] + ": null, " + text[1:]
    return text.encode("utf-8", "surrogatepass")


def mutate_json(path, r):
    if r.random() < 0.25:
        return mutate_bytes(path, r)
    value, what = change_json(json.loads(path.read_text()), r)
    path.write_bytes(write_json(value, r))
    return what


def mutate_lines(path, r):
    """A file of JSON lines: one line's value, or its bytes."""
    lines = path.read_bytes().splitlines()
    i = r.randrange(len(lines))
    if r.random() < 0.3:
        lines[i], what = bytes_of(lines[i], r)
    elif r.random() < 0.1:
        lines[i], what = r.choice([b"", b"[]", b"null", b"7", b'"a"', b"{}", b"[" * 5000, b'{"a":' * 3000, b"\xef\xbb\xbf" + lines[i], lines[i] * 2]), "a line"
    else:
        value, what = change_json(json.loads(lines[i]), r)
        lines[i] = write_json(value, r)
    path.write_bytes(b"\n".join(lines) + (b"\n" if r.random() < 0.9 else b""))
    return f"line {i + 1}: {what}"


def mutate_gzip(path, r):
    import gzip

    if r.random() < 0.5:
        return mutate_bytes(path, r)
    path.write_bytes(gzip.decompress(path.read_bytes()))
    what = mutate_lines(path, r)
    path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return what


# --- TOML ----------------------------------------------------------------------------------------------------------
# Larger values of these are more work that was asked for, not a damaged file.
WORK = ("epochs", "batch_size", "samples_per_prompt", "ppo_epochs", "max_steps", "rows", "max_response_length", "max_refills", "rank", "every")


def mutate_toml(path, r):
    if r.random() < 0.25:
        return mutate_bytes(path, r)
    lines = path.read_text().splitlines()
    settings = [i for i, line in enumerate(lines) if "=" in line]
    i = r.choice(settings)
    key = lines[i].split("=")[0].rstrip()
    values = ["true", "nan", "inf", "-inf", "0.5", "1e308", '""', '"\\u001b[2J"', f'"{LONG}"', "[]", "[1, 'a']", "{}", "{a = {b = 1}}", "1979-05-27", "0x7fffffffffffffff", "'''\n'''", "[" * 200 + "]" * 200]
    values += [str(n) for n in (0, -1, 1, 3)] if any(word in key for word in WORK) else [str(n) for n in WHOLE]
    how = r.randrange(5)
    if how == 0:
        del lines[i]
    elif how == 1:
        lines.insert(i, lines[i])
    elif how == 2:
        lines[i] = lines[i].replace(key, r.choice([key + "x", key + ".a", '"' + LONG + '"', '"\\u0000"', key.upper()]), 1)
    else:
        lines[i] = f"{key} = {r.choice(values)}"
    path.write_text("\n".join(lines) + "\n")
    return f"line {i + 1}: {lines[i][:80]!r}" if i < len(lines) else "the last line removed"


# --- weights -------------------------------------------------------------------------------------------------------
def split_safetensors(data):
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def mutate_safetensors(path, r):
    how = r.randrange(4)
    if how == 0:
        return mutate_bytes(path, r)
    header, data = split_safetensors(path.read_bytes())
    if how == 1:  # numbers that are none, or too large
        at = r.randrange(len(data) // 4) * 4
        data = bytearray(data)
        data[at : at + 4] = r.choice([b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff", b"\xff\xff\x7f\x7f"]) * 1
        what = f"number {at // 4}"
    else:
        header, what = change_json(header, r)
    text = write_json(header, r)
    length = len(text) if r.random() < 0.95 else r.choice([0, 2**62, len(text) + 1])
    path.write_bytes(struct.pack("<Q", length) + text + bytes(data))
    return what


def torch_pickle(tensors):
    """A state dict as torch.save's pickle has it; tensors: name → (storage key, shape), float32."""
    def text(s):
        return b"X" + struct.pack("<I", len(s)) + s.encode()

    def number(n):
        return b"J" + struct.pack("<i", n)

    out = b"\x80\x02ccollections\nOrderedDict\n)R("
    for name, (key, shape) in tensors.items():
        count, strides = 1, []
        for size in reversed(shape):
            strides.insert(0, count)
            count *= size
        out += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n("
        out += b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + number(count) + b"tQ"
        out += number(0) + b"(" + b"".join(map(number, shape)) + b"t(" + b"".join(map(number, strides)) + b"t"
        out += b"\x89ccollections\nOrderedDict\n)RtR"
    return out + b"u."


def stored_zip(members):
    body, directory = b"", b""
    for name, data in members.items():
        name = name.encode()
        fixed = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, zlib.crc32(data), len(data), len(data), len(name), 0)
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + fixed + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name
        body += b"PK\x03\x04" + fixed + name + data
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + b"PK\x05\x06" + end


def bin_members(safetensors, names=None):
    """The members of the pytorch_model.bin that holds the tensors of a safetensors file."""
    header, data = split_safetensors(safetensors)
    header.pop("__metadata__", None)
    chosen = {name: entry for name, entry in header.items() if names is None or name in names}
    members = {"archive/data.pkl": torch_pickle({n: (str(i), e["shape"]) for i, (n, e) in enumerate(chosen.items())}), "archive/version": b"3\n"}
    for i, entry in enumerate(chosen.values()):
        members[f"archive/data/{i}"] = data[slice(*entry["data_offsets"])]
    return members


def mutate_bin(path, r):
    if r.random() < 0.3:
        return mutate_bytes(path, r)
    # The pickle is the archive's first member, stored plainly: it is changed and the archive written anew.
    members = bin_members((path.parent / "source.safetensors").read_bytes())
    pickle = members["archive/data.pkl"]
    if r.random() < 0.5:
        members["archive/data.pkl"], what = bytes_of(pickle, r)
    else:
        at = r.randrange(2, len(pickle))
        codes = [b"N", b")", b"]", b"}", b"(", b"0", b"\x94" * 9, b"h\0", b"q\0", b"t", b"R", b"Q", b"s", b"u", b"e", b"b", b"cos\nsystem\n", b"cbuiltins\neval\n", b"N" * 200_000, b"\x8a\x08" + b"\xff" * 8]
        what = r.choice(codes)
        members["archive/data.pkl"] = pickle[:at] + what + pickle[at:]
        what = f"pickle at {at}: {what[:20]}"
    if r.random() < 0.1:
        members.pop(r.choice(list(members)))
    path.write_bytes(stored_zip(members))
    return what


# --- templates -----------------------------------------------------------------------------------------------------
SNIPPETS = ["{{ messages }}", "{% for m in messages %}", "{% endfor %}", "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}", "{{ raise_exception('x' * 1000) }}", "{{ 'a' * 10**9 }}",
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}", "{{ '\x1b[31m' }}", "{{ messages[0].content[::-1] }}", "{{ messages[99].content }}", "{{ 1 // 0 }}", "{{ [1] * 10**8 }}",
            "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "{{ (('a' * 100000) ~ 'b').find('a' * 50000 ~ 'b') }}", "{% set s = 'a' * 1000000 %}{% for i in range(90000) %}{% if s.startswith(s) %}{% endif %}{% endfor %}", "{{ 'a' * 500000 | trim('b' * 500000) }}",
            "{% set s = 'a' * 900000 %}{% for i in range(9000) %}{% set t = s[1:] %}{% endfor %}", "{% include 'x' %}", "{{ messages | tojson(indent=99) }}", "{#", "#}", "{{", "%}", "{% raw %}", "{{ strftime_now('%Y' * 400) }}", "(" * 3000, "{{ not " * 500]


def mutate_template(path, r):
    text = path.read_text()
    if r.random() < 0.3:
        return mutate_bytes(path, r)
    at = r.randrange(len(text) + 1)
    snippet = r.choice(SNIPPETS)
    path.write_text(text[:at] + snippet + text[at + r.choice([0, 0, 5]) :])
    return f"at {at}: {snippet[:60]!r}"


def mutate_text(path, r):
    return mutate_bytes(path, r)


# --- what stands in the file's place ---------------------------------------------------------------------------------
def replace_by(path, r):
    path.unlink()
    kind = r.choice(["nothing", "folder", "pipe", "loop", "lost link", "zeros", "link to a read error", "empty", "secret"])
    if kind == "pipe" and path.name == "lines.jsonl":
        kind = "nothing"  # a command waits for who writes its input, as cat does
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "lost link":
        path.symlink_to("/nowhere/at/all")
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    elif kind == "link to a read error":
        path.symlink_to("/proc/self/mem")  # a regular file whose first bytes cannot be read
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "secret":
        pathlib.Path(path.parent / "elsewhere").write_text("top secret: 12345\n")
        path.symlink_to("elsewhere")
    return kind

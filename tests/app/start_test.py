#!/usr/bin/env python3
"""How the program starts: start_test.py BINARY. What LibTorch's OpenMP is told before it is loaded, as OpenMP itself
prints it; a program that is moved, linked or incomplete."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BINARY = Path(sys.argv[1]).resolve()
PLAIN = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")}


def version(binary, **environment):
    return subprocess.run([binary, "--version"], env=PLAIN | environment, capture_output=True, text=True, timeout=60)


def spins(**environment):
    done = version(BINARY, OMP_DISPLAY_ENV="VERBOSE", **environment)
    assert done.returncode == 0 and done.stdout.startswith("dsengine "), done
    return int(re.search(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr).group(1))


def test_openmp_is_told():
    assert spins() == 2000, spins()
    assert spins(GOMP_SPINCOUNT="77") == 77, "the user's own counts"
    assert spins(OMP_WAIT_POLICY="PASSIVE") == 0
    assert spins(OMP_WAIT_POLICY="ACTIVE") > 10**6


def test_where_it_lies():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "link").symlink_to(BINARY)
        assert version(folder / "link").returncode == 0
        (folder / "bin").mkdir()
        (folder / "lib").mkdir()
        copy = Path(shutil.copy(BINARY, folder / "bin"))
        alone = version(copy)
        assert alone.returncode == 1 and alone.stdout == "", alone
        lines = alone.stderr.splitlines()
        assert len(lines) == 1 and lines[0].startswith("dsengine: error: libdsengine_program.so: "), alone
        shutil.copy(BINARY.parent.parent / "lib/libdsengine_program.so", folder / "lib")
        assert version(copy).returncode == 0
        (folder / "libdsengine_program.so").write_text("of another version")
        assert version(copy, LD_LIBRARY_PATH=str(folder)).returncode == 0, "its own library comes first"


def test_plugins_see_what_a_program_is_linked_with():
    plugin = BINARY.parent.parent / "tests/abi/libdse_math.so"
    done = subprocess.run([BINARY, "plugins", "verify", plugin], env=PLAIN, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    needed = subprocess.run(["readelf", "-d", plugin], capture_output=True, text=True, check=True).stdout
    assert "libm.so" not in needed, "the fixture must leave it out"


for name, test in list(globals().items()):
    if name.startswith("test_"):
        test()
        print(f"{name}: ok")

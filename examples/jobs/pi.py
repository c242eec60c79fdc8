"""Digits of pi by Gibbons' spigot. What it remembers between segments lies in a file; a segment is one run of this program."""

import json
import os
import sys
from pathlib import Path

DIGITS = int(os.environ.get("DIGITS", "1000"))
SEGMENT = int(os.environ.get("CLUSTERAI_SEGMENT", "1"))
SEGMENTS = int(os.environ.get("CLUSTERAI_SEGMENTS", "1"))
STATE, FOUND = Path("state.json"), Path("pi.txt")

state = [int(number, 16) for number in json.loads(STATE.read_text())] if SEGMENT > 1 else [1, 0, 1, 1, 3, 3]
q, r, t, k, n, x = state
digits: list[str] = []
for _ in range(DIGITS * (SEGMENT - 1) // SEGMENTS, DIGITS * SEGMENT // SEGMENTS):
    while 4 * q + r - t >= n * t:
        q, r, t, k, n, x = q * k, (2 * q + r) * x, t * x, k + 1, (q * (7 * k + 2) + r * x) // (t * x), x + 2
    digits.append(str(n))
    q, r, n = 10 * q, 10 * (r - n * t), (10 * (3 * q + r)) // t - 10 * n

with FOUND.open("a") as file:
    file.write("".join(digits))
STATE.write_text(json.dumps([hex(number) for number in (q, r, t, k, n, x)]))
print(f"segment {SEGMENT} of {SEGMENTS}: {len(digits)} digits")
if SEGMENT < SEGMENTS:
    sys.exit(75)  # A checkpoint lies here: call me again.

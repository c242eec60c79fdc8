"""Fit a line by gradient descent, with numpy: a job that was never written for this network."""

import sys

import numpy as np

steps = int(sys.argv[sys.argv.index("--steps") + 1])
noise = np.random.default_rng()
x = np.linspace(0, 1, 100)
y = 3 * x + 1 + noise.normal(scale=0.01, size=100)
slope, offset = 0.0, 0.0
for step in range(steps):
    error = slope * x + offset - y
    slope -= 0.5 * float((error * x).mean())
    offset -= 0.5 * float(error.mean())
    if step % 50 == 0:
        print(f"step {step}: loss {float((error**2).mean()):.5f}")
np.save("line.npy", np.array([slope, offset]))
print(f"y = {slope:.2f} x + {offset:.2f}")

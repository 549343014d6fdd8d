"""Makes edge_app/assets/digits-heldout.npz: python tests/edge_app/make_digits_asset.py

Needs scikit-learn, which the device does not: the split and its 8-bit gray levels are those on
which training never trains. One channel is stored; the source repeats it to three.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

ASSET = Path(__file__).parents[2] / "edge_app" / "assets" / "digits-heldout.npz"


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """Gray levels uint8 [360,8,8] and labels uint8 [360]."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    chosen = np.random.default_rng(20250101).permutation(1797)[:360]
    gray = np.rint(bunch.images[chosen] * (255.0 / 16.0)).astype(np.uint8)
    return gray, bunch.target[chosen].astype(np.uint8)


if __name__ == "__main__":
    gray, labels = held_out()
    np.savez_compressed(ASSET, gray=gray, labels=labels)
    print(f"{ASSET}: {ASSET.stat().st_size} bytes")

"""How unlike the clients are: the distance of their labels from everybody's, and the spread of their sizes.

Jensen-Shannon divergence (J. Lin, "Divergence Measures Based on the Shannon Entropy", IEEE Trans. Inf. Theory 37:145,
1991) of a client's label distribution p from the global one g: JSD = (KL(p | m) + KL(g | m)) / 2 with m = (p + g) / 2,
to base 2: 0 where p = g, 1 where they share no label. A client's own rows are part of g, so that K clients without a
common label stay below 1.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def jensen_shannon(counts: Sequence[Mapping[str, int]]) -> float | None:
    """Return the mean over clients, each counting alike, of the divergence from the union of all clients, in [0, 1].

    `counts[k]` maps a label to its rows at client k; clients without rows are left out. None without labels.
    """
    total = sum((Counter(row) for row in counts), Counter[str]())
    names = sorted(total)
    if not names:
        return None
    union = np.array([total[name] for name in names]) / total.total()
    present = [row for row in counts if sum(row.values())]
    divergences = [_divergence(np.array([row.get(name, 0) for name in names]), union) for row in present]
    return float(np.mean(divergences))


def size_variation(sizes: Sequence[int]) -> float:
    """Return the coefficient of variation of the clients' sizes, standard deviation / mean; 0 where all are alike."""
    return float(np.std(sizes) / np.mean(sizes))


def _divergence(client: NDArray[np.int64], union: NDArray[np.float64]) -> float:
    share = client / client.sum()
    middle = (share + union) / 2
    return max(0.0, (_relative_entropy(share, middle) + _relative_entropy(union, middle)) / 2)


def _relative_entropy(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Return KL(p | q) in bits; q is positive wherever p is."""
    held = p > 0
    return float(np.sum(p[held] * np.log2(p[held] / q[held])))

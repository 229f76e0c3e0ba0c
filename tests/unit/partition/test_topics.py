"""Topics: what is alike is put together, by every process alike, and called by its words."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_info, threadpool_limits

from fedlit.config.schema import DataConfig
from fedlit.errors import UserError
from fedlit.partition.topics import find_topics, topic_text

REPO = Path(__file__).parents[3]
WORDS = {
    "garden": "tulip rose shovel seed compost hedge",
    "kitchen": "oven flour butter recipe whisk pan",
    "harbour": "anchor sail mast tide captain rope",
}


def texts_of(num: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(0)
    names = [str(name) for name in rng.choice(list(WORDS), size=num)]
    return names, [
        " ".join(["question", "the", *rng.choice(WORDS[name].split(), size=5), "000 1999"]) for name in names
    ]


def test_texts_of_one_subject_are_one_topic() -> None:
    names, texts = texts_of(300)
    topics = find_topics(texts, 3, 0)
    assert adjusted_rand_score(names, topics) > 0.95
    for topic in set(topics):
        words = topic.split(", ")
        (subject,) = {name for name, text in WORDS.items() if set(words) <= set(text.split())}
        assert len(words) == 3
        assert max(topics.count(topic), names.count(subject)) < 1.1 * min(topics.count(topic), names.count(subject))


def test_topics_are_seeded() -> None:
    _, texts = texts_of(200)
    assert find_topics(texts, 5, 0) == find_topics(texts, 5, 0)
    assert find_topics(texts, 5, 0) != find_topics(texts, 5, 1)


def test_topics_do_not_depend_on_threads_or_the_hash_seed() -> None:
    _, texts = texts_of(600)
    program = f"from fedlit.partition.topics import *; print(find_topics({texts!r}, 7, 0))"
    env = os.environ | dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "2")
    env |= {"PYTHONHASHSEED": "77", "PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(find_topics(texts, 7, 0))


def test_k_means_runs_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    fit = KMeans.fit

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append({pool["num_threads"] for pool in threadpool_info()})
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(KMeans, "fit", watched)
    with threadpool_limits(limits=2):
        find_topics(texts_of(50)[1], 2, 0)
        after = {pool["num_threads"] for pool in threadpool_info()}
    assert seen == [{1}]
    assert after != {1}


def test_two_topics_never_share_a_name() -> None:
    texts = ["apple pear plum"] * 3 + ["pear plum apple apple apple apple"] * 3 + ["stone iron"] * 6
    topics = find_topics(texts, 3, 0)
    assert len(set(topics)) == 3
    assert sorted(topic.removesuffix(" (2)").count(",") for topic in set(topics)) == [1, 2, 2]


def test_the_text_of_a_row() -> None:
    row = {"prompt": "Q", "context": "C", "response": "R", "text": "A", "other": "B", "label": "x"}
    assert topic_text(row, DataConfig(template="### {prompt}\n{context}")) == "Q\nC\nR"
    assert topic_text(row, DataConfig(prompt="context")) == "C\nR"
    pair = DataConfig(task="sequence_classification", text=["text", "other"])
    assert topic_text(row, pair) == "A\nB"
    with pytest.raises(UserError, match=r"partition\.name=topics clusters texts and data.task=image_classification"):
        topic_text(row, DataConfig(task="image_classification"))


def test_mistakes() -> None:
    with pytest.raises(UserError, match=r"partition\.num_topics=5: more than the 4 rows"):
        find_topics(["a b"] * 4, 5, 0)
    with pytest.raises(UserError, match=r"partition\.name=topics: the 6 rows share no words"):
        find_topics([f"word{i}" for i in range(6)], 2, 0)
    with pytest.raises(UserError, match=r"partition\.name=topics: the 3 rows share no words"):
        find_topics(["the of", "and", ""], 2, 0)
    texts = ["apple pear"] * 5 + ["stone iron"] * 6
    with pytest.raises(UserError, match=r"num_topics=4: the rows fall into 2 topics only; set partition.num_topics=2"):
        find_topics(texts, 4, 0)

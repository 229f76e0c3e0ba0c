"""Topics of texts that carry no labels: TF-IDF and k-means of scikit-learn, so that there is something to skew.

A topic is of the whole example: a row's text is its prompt's columns and its response. The template's own words, the
same in every row, are left out; so are English stop words, terms of more than half the rows and terms of one row. Term
frequencies are logarithmic, so that a long answer does not count for its length.

Every process finds the topics by itself and must find the same ones: the libraries are held to one thread, since their
sums depend on the number of threads, and the start of k-means comes from one named stream.
"""

import warnings
from collections.abc import Sequence

from fedlit.config.schema import DataConfig
from fedlit.data.prompts import Row
from fedlit.errors import UserError
from fedlit.seeding import numpy_generator
from fedlit.tasks.registry import task_spec

TERM = r"\b[^\W\d_]\w+\b"
"""A term has two characters or more and begins with a letter: numbers tell no topic."""
NUM_NAMING_TERMS = 3
"""A topic is called by so many of its centroid's heaviest terms."""


def topic_text(row: Row, data: DataConfig) -> str:
    """Return the words of a row: its prompt's columns and its response, or the texts that are classified.

    Raises:
        UserError: the rows are images.
    """
    spec = task_spec(data.task)
    if not spec.reads_text:
        raise UserError(
            f"partition.name=topics clusters texts and data.task={data.task} has none; choose partition.name=dirichlet"
        )
    return spec.text(row, data)


def find_topics(texts: Sequence[str], num_topics: int, seed: int) -> list[str]:
    """Return the topic of every text, called by its heaviest terms: `num_topics` different names in all.

    Stream: (seed, "topics").

    Raises:
        UserError: too few texts, or too alike, for so many topics.
    """
    from sklearn.cluster import KMeans  # noqa: PLC0415  takes a second to import, and few partitions need it
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415

    if num_topics > len(texts):
        raise UserError(f"partition.num_topics={num_topics}: more than the {len(texts)} rows; choose fewer")
    vectorizer = TfidfVectorizer(token_pattern=TERM, stop_words="english", max_df=0.5, min_df=2, sublinear_tf=True)
    try:
        vectors = vectorizer.fit_transform(texts)
    except ValueError as error:  # its two reasons: stop words only, or no term in between the two limits
        raise UserError(
            f"partition.name=topics: the {len(texts)} rows share no words to tell topics by; "
            "choose partition.name=iid, or dirichlet over a column named with data.label="
        ) from error
    start = int(numpy_generator(seed, "topics").integers(2**32))
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Number of distinct clusters")  # an error below
        means = KMeans(num_topics, n_init=1, random_state=start).fit(vectors)
    numbers = means.labels_.tolist()
    if len(set(numbers)) < num_topics:
        raise UserError(
            f"partition.num_topics={num_topics}: the rows fall into {len(set(numbers))} topics only; "
            f"set partition.num_topics={len(set(numbers))} or less"
        )
    names = _names(means.cluster_centers_.tolist(), vectorizer.get_feature_names_out().tolist())
    return [names[number] for number in numbers]


def _names(centroids: Sequence[Sequence[float]], terms: Sequence[str]) -> list[str]:
    """Return a name for every centroid; one that another topic has too is followed by a number."""
    names: list[str] = []
    for weights in centroids:
        order = sorted(range(len(terms)), key=lambda i: (-weights[i], terms[i]))[:NUM_NAMING_TERMS]
        plain = name = ", ".join(terms[i] for i in order if weights[i] > 0) or "no words"
        number = 1
        while name in names:
            number += 1
            name = f"{plain} ({number})"
        names.append(name)
    return names

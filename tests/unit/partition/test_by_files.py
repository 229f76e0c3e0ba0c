"""Every file a client."""

import pytest

from fedlit.errors import UserError
from fedlit.partition.by_files import deal_files


def test_each_file_is_a_client_in_the_order_of_the_names() -> None:
    parts, names = deal_files(["site_10", "site_2", "site_10", "site_1"], 3)
    assert (parts, names) == ([[3], [1], [0, 2]], ["site_1", "site_2", "site_10"])


@pytest.mark.parametrize(
    ("files", "num_clients", "words"),
    [
        ([], 2, "come from none"),
        (["a", "b"], 3, "of 2 files (a, b); set num_clients=2"),
        (["a"], 3, "of 1 file (a); set num_clients=1"),
    ],
)
def test_what_does_not_fit_is_told(files: list[str], num_clients: int, words: str) -> None:
    with pytest.raises(UserError, match=r".") as caught:
        deal_files(files, num_clients)
    assert words in str(caught.value)

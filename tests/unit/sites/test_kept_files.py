"""A site's files answer a message from the state before it, whatever came later."""

from pathlib import Path

from fedlit.sites.kept_files import KeptFiles
from fedlit.sites.messages import Message


def message(kind: str, round_idx: int) -> Message:
    return Message(kind=kind, facts={"round_idx": round_idx})


def after(kept: KeptFiles, *order: tuple[str, int]) -> None:
    for kind, round_idx in order:
        kept.keep(message(kind, round_idx), f"{kind} {round_idx}".encode())


def test_a_round_goes_on_from_the_one_before(tmp_path: Path) -> None:
    kept = KeptFiles(folder=tmp_path / "site")
    assert kept.before(message("train", 0)) is None
    after(kept, ("train", 0))
    assert kept.before(message("evaluate", 1)) == b"train 0"
    after(kept, ("evaluate", 1))
    assert kept.before(message("train", 1)) == b"evaluate 1"
    assert kept.before(message("train", 7)) == b"evaluate 1"  # it was not invited in between


def test_a_round_that_is_asked_again_begins_where_it_began(tmp_path: Path) -> None:
    kept = KeptFiles(folder=tmp_path)
    after(kept, ("train", 0), ("evaluate", 1), ("train", 1), ("evaluate", 2))
    assert kept.before(message("train", 1)) == b"evaluate 1"
    after(kept, ("train", 1))
    assert kept.before(message("evaluate", 2)) == b"train 1"
    assert kept.before(message("train", 0)) is None  # a federation that begins anew


def test_only_the_last_are_kept(tmp_path: Path) -> None:
    kept = KeptFiles(folder=tmp_path)
    after(kept, *((kind, number) for number in range(5) for kind in ("evaluate", "train")))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number:08d}.pt" for number in (6, 7, 8, 9)]
    after(kept, ("train", 3))  # a centre that goes on from an older checkpoint
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number:08d}.pt" for number in (6, 7)]


def test_clients_and_federations_have_places_of_their_own(tmp_path: Path) -> None:
    folders = {
        KeptFiles.of(tmp_path, client, {"method.name": method}).folder
        for client in (0, 1)
        for method in ("fedit", "fedsa_lora")
    }
    assert len(folders) == 4
    assert KeptFiles.of(tmp_path, 0, {"b": 1, "a": 2}) == KeptFiles.of(tmp_path, 0, {"a": 2, "b": 1})

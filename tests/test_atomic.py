"""A file is written whole or not at all."""

import pytest

from jsd.atomic import atomic_file, give_usual_permissions, write_text


@pytest.fixture
def path(tmp_path):
    return tmp_path / "result.json"


@pytest.fixture
def old(path):
    path.write_text("old")
    return path


def test_the_file_appears_with_the_end_of_the_block(path):
    with atomic_file(path) as part:
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_an_old_file_is_replaced_as_a_whole(old):
    with atomic_file(old) as part:
        part.write_text("new")
        assert old.read_text() == "old"
    assert old.read_text() == "new"


def test_the_temporary_file_is_hidden_beside_the_path_and_keeps_its_suffix(path):
    with atomic_file(path) as part:
        assert part.parent == path.parent
        assert part.name.startswith(".")
        assert part.suffix == ".json"
        part.touch()


def fail_halfway(path, error):
    with atomic_file(path) as part:
        part.write_text("half of the n")
        raise error


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_failed_block_leaves_the_old_file_and_nothing_else(old, error):
    with pytest.raises(type(error)):
        fail_halfway(old, error)
    assert old.read_text() == "old"
    assert list(old.parent.iterdir()) == [old]


def test_a_failed_block_makes_no_new_file(path):
    with pytest.raises(OSError, match="No space"):
        fail_halfway(path, OSError("No space left on device"))
    assert list(path.parent.iterdir()) == []


def test_a_block_that_writes_nothing_is_an_error(old):
    with pytest.raises(FileNotFoundError), atomic_file(old):
        pass
    assert old.read_text() == "old"


def test_two_writers_at_once_do_not_disturb_each_other(path):
    with atomic_file(path) as first:
        with atomic_file(path) as second:
            first.write_text("first")
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


def test_text_is_written_as_utf_8(path):
    write_text(path, "猫\n")
    assert path.read_bytes() == "猫\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_text_that_can_not_be_encoded_leaves_the_old_file(old):
    with pytest.raises(UnicodeEncodeError):
        write_text(old, "\ud800")
    assert old.read_text() == "old"
    assert list(old.parent.iterdir()) == [old]


def test_a_file_gets_the_permissions_of_any_new_file(path):
    usual = path.with_name("usual")
    usual.touch()
    path.touch(0o600)
    give_usual_permissions(path)
    assert path.stat().st_mode == usual.stat().st_mode
    assert sorted(path.parent.iterdir()) == sorted([path, usual])

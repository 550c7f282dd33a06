import pytest

from skgeo.exceptions import SkgeoError
from skgeo.linalg import _memory as memory


def test_a_small_request_passes_and_a_vast_one_names_its_size():
    memory.require_memory(8, "one number", "nothing")
    with pytest.raises(SkgeoError, match=r"A vast matrix would take 1048576\.0 GiB.*take fewer"):
        memory.require_memory(2**50, "a vast matrix", "take fewer rows.")


def test_the_tighter_of_machine_and_control_group_counts(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("1000000")
    (tmp_path / "memory.current").write_text("400000")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available_memory() == 600_000
    (tmp_path / "memory.max").write_text("max")
    assert memory.available_memory() > 600_000


@pytest.mark.parametrize(
    ("count", "text"),
    [(5, "5 B"), (2048, "2.0 KiB"), (3 * 2**30, "3.0 GiB"), (2**43, "8192.0 GiB")],
)
def test_bytes_as_people_read_them(count, text):
    assert memory.format_bytes(count) == text

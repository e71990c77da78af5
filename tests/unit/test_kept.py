"""What is kept is what was used last and fits."""

from service.engine.kept import Kept


def kept() -> Kept[str, str]:
    values = Kept[str, str](10)
    for key in "abc":
        values.put(key, key.upper(), 3)
    return values


def test_what_was_used_longest_ago_makes_room() -> None:
    values = kept()
    values.get("a")
    values.put("d", "D", 3)
    assert [values.get(key) for key in "abcd"] == ["A", None, "C", "D"]
    assert values.bytes == 9


def test_what_does_not_fit_at_all_drives_nothing_out() -> None:
    values = kept()
    values.put("d", "D", 11)
    assert [values.get(key) for key in "abcd"] == ["A", "B", "C", None]
    assert values.bytes == 9


def test_what_has_grown_makes_room_of_the_others() -> None:
    values = kept()
    values.put("a", "grown", 7)
    assert [values.get(key) for key in "abc"] == ["grown", None, "C"]
    assert values.bytes == 10


def test_what_has_grown_too_large_is_kept_no_longer() -> None:
    values = kept()
    values.put("a", "larger", 11)
    assert (values.get("a"), len(values), values.bytes) == (None, 2, 6)

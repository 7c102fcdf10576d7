"""What the headers of another node's door say of its bars."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickers.vci.door import DATA_AGE, MOST_NODES, NODE_PATH, Door
from tickers.vci.errors import DoorError


def test_an_upstream_that_says_nothing_of_the_kind_is_no_door() -> None:
    assert Door.of({"Date": "today", "Age": "7"}) is None


def test_a_door_says_how_old_its_bars_are_and_which_way_they_came() -> None:
    assert Door.of({DATA_AGE: "12", NODE_PATH: "ab12, node-b"}) == Door(12, ("ab12", "node-b"))


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({NODE_PATH: "ab12"}, "how old"),
        ({NODE_PATH: "ab12", DATA_AGE: ""}, "how old"),
        ({NODE_PATH: "ab12", DATA_AGE: "-1"}, "how old"),
        ({NODE_PATH: "ab12", DATA_AGE: "nan"}, "how old"),
        ({NODE_PATH: "ab12", DATA_AGE: "9" * 5_000}, "how old"),
        ({DATA_AGE: "1"}, "which way"),
        ({DATA_AGE: "1", NODE_PATH: ""}, "which way"),
        ({DATA_AGE: "1", NODE_PATH: "ab12,,cd"}, "which way"),
        ({DATA_AGE: "1", NODE_PATH: "a b"}, "which way"),
        ({DATA_AGE: "1", NODE_PATH: "a" * 65}, "which way"),
        ({DATA_AGE: "1", NODE_PATH: ",".join(["a"] * (MOST_NODES + 1))}, "which way"),
    ],
)
def test_a_door_that_says_less_than_it_must_is_refused(
    headers: dict[str, str], problem: str
) -> None:
    with pytest.raises(DoorError, match=problem):
        Door.of(headers)


def test_bars_that_came_through_this_node_are_refused() -> None:
    door = Door(1, ("other", "own", "third"))
    with pytest.raises(DoorError, match="leads back to this node"):
        door.admit(own_id="own", oldest=300)
    door.admit(own_id="ow", oldest=300)


def test_bars_that_are_too_old_are_refused() -> None:
    Door(300, ("other",)).admit(own_id="own", oldest=300)
    with pytest.raises(DoorError, match="its bars are 301 s old"):
        Door(301, ("other",)).admit(own_id="own", oldest=300)


@given(age=st.text(max_size=12), path=st.text(max_size=80))
def test_whatever_headers_say_they_make_a_door_or_an_error(age: str, path: str) -> None:
    try:
        door = Door.of({DATA_AGE: age, NODE_PATH: path})
    except DoorError:
        return
    assert door is not None
    assert door.age >= 0
    assert all(door.path)

"""Does what we write as TOML read back the same?"""

from __future__ import annotations

import datetime
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid import toml

_scalars = (
    st.text()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.dates(datetime.date(1900, 1, 1))
)
_values = _scalars | st.lists(_scalars, max_size=4)
_tables = st.recursive(
    st.dictionaries(st.text(), _values, max_size=4),
    lambda inner: st.dictionaries(
        st.text(), _values | inner | st.lists(inner, min_size=1, max_size=3), max_size=4
    ),
    max_leaves=8,
)


@given(_tables)
def test_tables_read_back_as_they_were_written(table: dict[str, object]) -> None:
    assert tomllib.loads(toml.dumps(table)) == table


@pytest.mark.parametrize("value", [None, object(), {"a": None}, float("nan"), float("inf")])
def test_what_has_no_place_in_toml_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        toml.dumps({"key": value})

"""Values as aligned lines for people."""

from dask_nmf.display.text import align_values


def test_of_a_list_of_records_the_last_one_is_shown() -> None:
    found = align_values(
        {"run": "r", "lineage": [{"kind": "update"}, {"kind": "forget", "rows": [3, 4]}], "none": []}
    )
    assert found == [
        "run:     r",
        "lineage: the last of 2",
        "  kind:  forget",
        "  rows:  3 4",
        "none:    -",
    ]

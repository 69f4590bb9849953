"""The folder of a sweep: parts that can tell whether they are whole, and a digest of what they hold."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts_abi.errors import DataError, InputError
from simulation.backtest import store
from simulation.backtest.columns import gather
from simulation.backtest.parts import content_sha256, encode_part, part_table, read_columns, read_part
from simulation.backtest.plan import SweepPlan, make_plan
from simulation.backtest.store import StorageFull, part_file


def planned(**options: Any) -> SweepPlan:
    given: dict[str, Any] = {"task": "model:run", "paths": 10, "seed": 1, "chunk": 4} | options
    return make_plan({"days": 3, "name": "x"}, ["days=1,2"], **given)


def computed(plan: SweepPlan, index: int) -> pa.Table:
    """Return values that tell by themselves which path and point they are of."""
    task = plan.task_at(index)
    days = task.scenario["days"]
    return part_table(
        task,
        {
            "loss": np.array([days + path / 8 for path in task.paths]),
            "hit": np.array([path % 2 == 0 for path in task.paths]),
            "cause": [f"path {path}" for path in task.paths],
        },
    )


def filled(folder: Path, plan: SweepPlan) -> None:
    with store.opened(folder, plan):
        for index in range(plan.tasks):
            data, _ = encode_part(plan.task_at(index), computed(plan, index))
            store.commit(folder, index, store.write_aside(folder, index, data, 1))


# ------------------------------------------------------------------------------------------------- the digest


def test_the_digest_is_what_its_description_says() -> None:
    table = pa.table({"x": pa.array([1.5, -0.0]), "s": pa.array(["ab", "c"])})
    nothing = hashlib.sha256().digest()
    x = hashlib.sha256(struct.pack("<2d", 1.5, -0.0)).digest() + nothing + nothing
    lengths = hashlib.sha256(struct.pack("<2q", 2, 1)).digest()
    s = hashlib.sha256(b"abc").digest() + lengths + nothing
    whole = b"2\n" + b"1:x:double\n" + x + b"1:s:string\n" + s
    assert content_sha256([table]) == hashlib.sha256(whole).hexdigest()


def test_the_digest_does_not_see_how_rows_were_cut() -> None:
    table = pa.table(
        {
            "x": pa.array([1.0, None, float("nan"), 4.0, 5.0]),
            "n": pa.array([1, 2, None, 4, 5]),
            "b": pa.array([True, None, False, True, True]),
            "s": pa.array(["a", "", None, "long", "é"]),
        }
    )
    whole = content_sha256([table])
    assert content_sha256([table.slice(0, 2), table.slice(2, 0), table.slice(2)]) == whole
    assert content_sha256([pa.concat_tables([table.slice(0, 3), table.slice(3)])]) == whole


BASE: dict[str, list[Any]] = {"x": [1.0, 2.0], "b": [True, False], "s": ["ab", "c"]}


@pytest.mark.parametrize(
    "other",
    [
        {**BASE, "x": [1.0, np.nextafter(2.0, 3.0)]},
        {**BASE, "x": [2.0, 1.0]},
        {**BASE, "x": [1.0, None]},
        {**BASE, "x": [1, 2]},
        {**BASE, "b": [True, True]},
        {**BASE, "b": [True, None]},
        {**BASE, "s": ["a", "bc"]},
        {**BASE, "s": ["abc", ""]},
        {"y" if name == "x" else name: values for name, values in BASE.items()},
        dict(reversed(BASE.items())),
        {name: values[:1] for name, values in BASE.items()},
    ],
)
def test_the_digest_sees_every_value_type_name_and_place(other: dict[str, Any]) -> None:
    assert content_sha256([pa.table(other)]) != content_sha256([pa.table(BASE)])


def test_a_missing_value_is_no_zero_and_no_nan() -> None:
    digests = {content_sha256([pa.table({"x": pa.array([v], pa.float64())})]) for v in (None, 0.0, np.nan)}
    assert len(digests) == 3
    strange = np.frombuffer(struct.pack("<Q", 0x7FF8_0000_0000_BEEF), dtype=np.float64)
    assert content_sha256([pa.table({"x": strange})]) == content_sha256([pa.table({"x": [np.nan]})])


def test_the_digest_is_of_one_kind_of_rows() -> None:
    with pytest.raises(DataError, match="columns x double follow x int64"):
        content_sha256([pa.table({"x": [1]}), pa.table({"x": [1.0]})])


# ---------------------------------------------------------------------------------------------------- a part


@pytest.mark.parametrize(
    "values",
    [
        np.arange(10.0)[::3],
        np.arange(4)[::-1],
        np.array([True, False, False, True]),
        np.array([1.5, 2, 3, 4], dtype=">f4"),
        np.array([0, 255, 1, 2], dtype=np.uint8),
        np.array(["é", "", "b", "c"]),
        ["x", None, "y", ""],
        [1, None, 3, 4],
        pa.array([1.0, 2.0, None, 4.0]),
    ],
)
def test_columns_are_kept_as_they_were_given(values: Any) -> None:
    task = planned().task_at(0)
    table = part_table(task, {"v": values})
    assert table["v"].to_pylist() == (values.to_pylist() if isinstance(values, pa.Array) else list(values))
    assert table.column_names == ["point", "path", "v"]
    assert table["path"].to_pylist() == [0, 1, 2, 3]


def test_a_model_may_have_several_rows_per_path() -> None:
    task = planned().task_at(4)  # the second chunk of the second point
    table = part_table(task, pa.table({"protocol": ["a", "b", "a"], "path": [4, 4, 7]}))
    assert table.to_pydict() == {"point": [1, 1, 1], "path": [4, 4, 7], "protocol": ["a", "b", "a"]}


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"v": [1.0] * 3}, "3 rows for 4 paths; return a row per path, or a column 'path'"),
        ({"v": [1.0] * 4, "w": [1.0] * 3}, "column 'w': has 3 rows, the others have 4"),
        ({"v": np.ones((4, 2))}, "column 'v': is no list of values"),
        ({"v": [{}] * 4}, "column 'v': struct<> is not kept; return numbers, booleans or text"),
        ({"v": np.array(["2024-01-01"] * 4, "datetime64[s]")}, "column 'v': timestamp[s] is not kept"),
        ({"point": [1] * 4}, "column 'point': is written by the sweep; give it another name"),
        ({"v": [1, 2], "path": [3, 4]}, "column 'path': has paths other than 0-3"),
        ({"v": [1, 2], "path": [2, 1]}, "column 'path': must be in order"),
        ({"v": [1, 2], "path": [0.0, 1.0]}, "column 'path': must be whole numbers, is double"),
        ({"path": [0, 1]}, "no columns; return a value per path"),
        ([1.0] * 4, "a list is no result; return columns by name, or a table"),
    ],
)
def test_a_result_that_cannot_be_kept_is_refused(columns: Any, says: str) -> None:
    with pytest.raises(InputError) as refused:
        part_table(planned().task_at(0), columns)
    assert str(refused.value).startswith(says)


def test_a_part_is_read_back_whole(tmp_path: Path) -> None:
    plan = planned()
    table = computed(plan, 0)
    data, facts = encode_part(plan.task_at(0), table)
    file = tmp_path / "part"
    file.write_bytes(data)
    read, found = read_part(file, plan.task_id(0))
    assert read.equals(table)
    assert found == facts
    assert (facts.rows, facts.bytes) == (4, len(data))
    assert read_columns(file, plan.task_id(0), ["hit", "path"]).column_names == ["hit", "path"]


def test_damage_anywhere_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    plan = planned()
    table = computed(plan, 0)
    data, _ = encode_part(plan.task_at(0), table)
    file = tmp_path / "part"
    said = []
    for place in range(0, len(data), 11):
        file.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        try:
            read, _ = read_part(file, plan.task_id(0))
        except DataError as error:
            said.append(str(error))
        else:
            assert read.equals(table)
    assert len(said) > 20
    assert all(text.startswith(f"{file}: ") and "\n" not in text for text in said)
    for length in range(0, len(data), 97):
        file.write_bytes(data[:length])
        with pytest.raises(DataError, match="cannot be read"):
            read_part(file, plan.task_id(0))


def test_a_part_with_a_foreign_value_and_a_true_id_is_noticed(tmp_path: Path) -> None:
    plan = planned()
    file = tmp_path / "part"
    file.write_bytes(encode_part(plan.task_at(0), computed(plan, 0))[0])
    table = pq.read_table(file)
    forged = table.set_column(2, "loss", pa.array([9.0, 9.0, 9.0, 9.0])).replace_schema_metadata(
        table.schema.metadata
    )
    pq.write_table(forged, file)
    with pytest.raises(DataError, match="is not what was written"):
        read_part(file, plan.task_id(0))
    with pytest.raises(DataError, match="is of another task"):
        read_part(file, plan.task_id(1))
    with pytest.raises(DataError, match="is missing"):
        read_part(tmp_path / "none", plan.task_id(0))


# -------------------------------------------------------------------------------------------------- a folder


def test_a_folder_is_read_in_the_order_of_tasks(tmp_path: Path) -> None:
    plan = planned()
    filled(tmp_path / "s", plan)
    expected = pa.concat_tables([computed(plan, index) for index in range(plan.tasks)])
    assert store.finish(tmp_path / "s", plan).sha256 == content_sha256([expected])
    assert store.read(tmp_path / "s").equals(expected)
    assert [table.num_rows for table in store.read_tables(tmp_path / "s")] == [4, 4, 2] * 2
    one = store.read(tmp_path / "s", columns=["loss"], points=[1], parameters=True)
    assert one.column_names == ["point", "loss", "days"]
    assert set(one["days"].to_pylist()) == {2}
    assert one["loss"].to_pylist() == [2 + path / 8 for path in range(10)]


def test_the_digest_does_not_depend_on_the_chunk(tmp_path: Path) -> None:
    digests = set()
    for chunk in (1, 3, 10):
        plan = planned(chunk=chunk)
        filled(tmp_path / str(chunk), plan)
        digests.add(store.finish(tmp_path / str(chunk), plan).sha256)
    assert len(digests) == 1


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    plan = planned()
    with pytest.raises(InputError, match=r"is not the folder of a sweep: no plan\.json"):
        store.read(tmp_path)
    filled(tmp_path / "s", plan)
    with pytest.raises(InputError, match="no column 'los'; there are point, path, loss, hit, cause"):
        store.read(tmp_path / "s", columns=["los"])
    with pytest.raises(InputError, match="point 2: there are 2; name one of 0-1"):
        store.read(tmp_path / "s", points=[2])
    part_file(tmp_path / "s", 3).unlink()
    with pytest.raises(DataError, match=r"0000003\.parquet: is missing; run the sweep again to complete it"):
        store.read(tmp_path / "s")
    with pytest.raises(DataError, match="is missing; run the sweep again"):
        store.finish(tmp_path / "s", plan)


def test_a_folder_never_changes_its_plan(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    filled(folder, planned())
    with (
        pytest.raises(InputError) as refused,
        store.opened(folder, planned(seed=2)),
    ):
        pass
    fix = "another folder (--out), or run what it was begun with"
    assert str(refused.value) == f"{folder} has a sweep of another plan: seed is 2, and was 1; {fix}"
    (folder / "plan.json").write_text("{")
    with pytest.raises(DataError, match=r"plan\.json: cannot be read"), store.opened(folder, planned()):
        pass


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(InputError, match=r"is not the folder of a sweep: it has thesis\.tex; choose a new"),
        store.opened(tmp_path, planned()),
    ):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="is a file"), store.opened(tmp_path / "thesis.tex", planned()):
        pass


def test_a_folder_is_locked_while_it_is_open(tmp_path: Path) -> None:
    plan = planned()
    with (
        store.opened(tmp_path / "s", plan),
        pytest.raises(InputError, match=r"^another sweep works on"),
        store.opened(tmp_path / "s", plan),
    ):
        pass
    with store.opened(tmp_path / "s", plan):
        pass


def test_a_killed_sweeps_unfinished_files_go(tmp_path: Path) -> None:
    plan = planned()
    filled(tmp_path / "s", plan)
    left = tmp_path / "s" / "parts" / ".0000001.77.tmp"
    left.write_bytes(b"half")
    with store.opened(tmp_path / "s", plan):
        assert not left.exists()
        assert sum(store.scan(tmp_path / "s", plan).done) == plan.tasks


def test_scan_counts_what_is_whole(tmp_path: Path) -> None:
    folder, plan = tmp_path / "s", planned()
    filled(folder, plan)
    part_file(folder, 1).write_bytes(b"PAR1")
    part_file(folder, 4).unlink()
    # Whole, but with other columns than the first.
    task = plan.task_at(5)
    data, _ = encode_part(task, part_table(task, {"gain": [1.0, 2.0]}))
    part_file(folder, 5).write_bytes(data)
    found = store.scan(folder, plan)
    assert list(found.done) == [1, 0, 1, 1, 0, 0]
    assert [index for index, _ in found.damaged] == [1, 5]
    assert found.rows == 4 + 2 + 4
    assert found.bytes == sum(part_file(folder, index).stat().st_size for index in (0, 2, 3))


@pytest.mark.parametrize("step", ["write_text", "fsync", "replace"])
def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text("before")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if step == "fsync" else Path, step, full)
    with pytest.raises(StorageFull, match=r"^no room for .*plan\.json: No space left on device; make room"):
        store.write_json(file, {"a": 1})
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.json"]
    assert file.read_text() == "before"


def test_a_part_that_did_not_fit_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parts").mkdir()
    whole = Path.write_bytes

    def half(self: Path, data: bytes) -> int:
        whole(self, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(StorageFull):
        store.write_aside(tmp_path, 3, b"data", 1)
    assert list((tmp_path / "parts").iterdir()) == []


def test_the_order_is_write_sync_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("sync"), fsync(handle)))
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (steps.append(f"rename to {to.name}"), replace(self, to))[1]
    )
    (tmp_path / "parts").mkdir()
    store.commit(tmp_path, 3, store.write_aside(tmp_path, 3, b"data", 1))
    assert steps == ["sync", "rename to 0000003.parquet"]
    assert part_file(tmp_path, 3).read_bytes() == b"data"


def test_the_list_of_parts_is_made_from_the_parts(tmp_path: Path) -> None:
    plan = planned()
    filled(tmp_path / "s", plan)
    (tmp_path / "s" / "result.json").write_text("lies")
    result = store.finish(tmp_path / "s", plan)
    document = json.loads((tmp_path / "s" / "result.json").read_text())
    assert (document["sha256"], document["rows"]) == (result.sha256, 20)
    assert document["columns"] == {
        "point": "int64",
        "path": "int64",
        "loss": "double",
        "hit": "bool",
        "cause": "string",
    }
    assert [(part["task"], part["rows"]) for part in document["parts"]] == list(enumerate([4, 4, 2] * 2))
    assert document["parts"][2]["content_sha256"] == content_sha256([computed(plan, 2)])


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1_234, "1.23 kB"), (5e12, "5 TB"), (2.5e15, "2.5e+03 TB")]
)
def test_sizes_for_people(size: float, text: str) -> None:
    assert store.size_text(size) == text


# -------------------------------------------------------------------------------------------- columns on disk


def test_a_point_is_gathered_into_one_table_whose_columns_are_read_alone(tmp_path: Path) -> None:
    plan = make_plan({"days": 3}, ["days=1,2"], task="model:run", paths=10, seed=1, chunk=4)
    folder = tmp_path / "sweep"
    with store.opened(folder, plan):
        for index in range(plan.tasks):
            task = plan.task_at(index)
            table = part_table(task, {"loss": np.array([task.scenario["days"] + p / 8 for p in task.paths])})
            data, _ = encode_part(task, table)
            store.commit(folder, index, store.write_aside(folder, index, data, 1))
        store.finish(folder, plan)
    columns = gather(folder, 1, tmp_path / "out" / "point.parquet")
    assert set(columns) == {"path", "loss"}
    assert columns["loss"].tolist() == [2 + p / 8 for p in range(10)]
    assert columns["loss"] is not columns["loss"]
    with pytest.raises(KeyError):
        columns["gain"]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["point.parquet"]

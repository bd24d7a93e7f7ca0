"""Parquet files as pyarrow writes them: python tests/python/parquet_files.py

Beside `types_*.parquet` lie the same rows as JSON Lines, as pyarrow reads them back;
src/data/parquet/tests.rs compares. The other files are sets of questions,
conversations and tokens, in the layout that Hugging Face's datasets use."""

import datetime
import decimal
import json
import math
import pathlib
import random

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "parquet"
WORDS = "Oslo Rome the a river 1874 é 東京 ½ \U0001f600 \" \\ \n".split(" ")


def text(rng):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(5)))


def maybe(rng, make):
    return None if rng.random() < 0.2 else make()


def some(rng, make):
    return [make() for _ in range(rng.choice([0, 1, 1, 2, 5]))]


def types(rng, rows):
    """A table of every kind of column, with gaps."""
    when = datetime.datetime(2026, 11, 28, 1, 2, 3)
    makers = {
        "string": (pa.string(), lambda: text(rng)),
        "large": (pa.large_string(), lambda: text(rng)),
        "words": (pa.dictionary(pa.int32(), pa.string()), lambda: rng.choice(WORDS)),
        "view": (pa.string_view(), lambda: text(rng)),
        "bool": (pa.bool_(), lambda: rng.random() < 0.5),
        "int8": (pa.int8(), lambda: rng.randrange(-128, 128)),
        "uint8": (pa.uint8(), lambda: rng.randrange(256)),
        "uint32": (pa.uint32(), lambda: rng.randrange(2**32)),
        "int64": (pa.int64(), lambda: rng.randrange(-(2**63), 2**63)),
        "uint64": (pa.uint64(), lambda: rng.randrange(2**64)),
        "half": (pa.float16(), lambda: rng.randrange(-64, 64) / 16),
        "float": (pa.float32(), lambda: rng.randrange(-999, 999) / 32),
        "double": (pa.float64(), lambda: rng.gauss(0, 1)),
        "date": (pa.date32(), lambda: when.date() + datetime.timedelta(rng.randrange(-99999, 9999))),
        "milli": (pa.timestamp("ms"), lambda: when + datetime.timedelta(milliseconds=rng.randrange(10**9))),
        "nano": (pa.timestamp("ns"), lambda: when + datetime.timedelta(seconds=rng.randrange(-(10**9), 10**6))),
        "money": (pa.decimal128(9, 2), lambda: decimal.Decimal(rng.randrange(-(10**6), 10**6)) / 100),
        "big": (pa.decimal128(30, 0), lambda: decimal.Decimal(rng.randrange(10**24))),
        "list": (pa.list_(pa.string()), lambda: some(rng, lambda: maybe(rng, lambda: text(rng)))),
        "large_list": (pa.large_list(pa.int64()), lambda: some(rng, lambda: rng.randrange(9))),
        "nested": (
            pa.list_(pa.list_(pa.int32())),
            lambda: some(rng, lambda: maybe(rng, lambda: some(rng, lambda: maybe(rng, lambda: rng.randrange(9))))),
        ),
        "struct": (
            pa.struct([("a", pa.string()), ("b", pa.list_(pa.int16()))]),
            lambda: {"a": maybe(rng, lambda: text(rng)), "b": maybe(rng, lambda: some(rng, lambda: 7))},
        ),
        "structs": (
            pa.list_(pa.struct([("role", pa.string()), ("parts", pa.list_(pa.struct([("n", pa.int64())])))])),
            lambda: some(
                rng,
                lambda: {"role": maybe(rng, lambda: text(rng)), "parts": maybe(rng, lambda: some(rng, lambda: {"n": rng.randrange(9)}))},
            ),
        ),
        "map": (pa.map_(pa.string(), pa.int64()), lambda: [(w, rng.randrange(9)) for w in rng.sample(WORDS, 2)]),
    }
    fields = [pa.field(name, kind) for name, (kind, _) in makers.items()]
    columns = [[maybe(rng, make) for _ in range(rows)] for _, make in makers.values()]
    fields.append(pa.field("whole", pa.string(), nullable=False))
    columns.append([text(rng) for _ in range(rows)])
    arrays = [pa.array(column, field.type) for column, field in zip(columns, fields)]
    return pa.table(arrays, schema=pa.schema(fields))


def plain(value, kind):
    """What JSON has for a value."""
    if value is None:
        return None
    if pa.types.is_map(kind):
        return {key: item for key, item in value}
    if isinstance(value, (list, dict)) or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        # float32 and float16 by the shortest digits, which these values have exactly.
        return value if math.isfinite(value) else str(value)
    # Thousandths of a second, as far as that is exact.
    return str(value).removesuffix("000") if isinstance(value, datetime.datetime) and value.microsecond else str(value)


def write_types():
    rng = random.Random(7)
    for name, rows, options in [
        ("snappy", 70, {"compression": "snappy", "row_group_size": 30, "data_page_size": 300}),
        ("zstd", 30, {"compression": "zstd", "data_page_version": "2.0", "data_page_size": 200}),
        ("gzip", 20, {"compression": "gzip", "use_dictionary": False, "row_group_size": 17}),
        ("none", 20, {"compression": "none", "store_schema": False, "version": "1.0"}),
        ("delta", 20, {
            "compression": "zstd",
            "use_dictionary": False,
            "column_encoding": {"string": "DELTA_BYTE_ARRAY", "large": "DELTA_LENGTH_BYTE_ARRAY",
                                "int64": "DELTA_BINARY_PACKED", "double": "BYTE_STREAM_SPLIT"},
        }),
    ]:
        table = types(rng, rows)
        if name == "none":
            # Version 1.0 has no nanoseconds and no half floats.
            table = table.drop_columns(["nano", "half", "uint32"])
        path = FOLDER / f"types_{name}.parquet"
        pq.write_table(table, path, **options)
        read = pq.read_table(path)
        with open(path.with_suffix(".jsonl"), "w") as out:
            for row in read.to_pylist():
                row = {key: plain(value, read.schema.field(key).type) for key, value in row.items()}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_sets():
    answers = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))])
    squad = pa.schema([("id", pa.string()), ("title", pa.string()), ("context", pa.string()),
                       ("question", pa.string()), ("answers", answers)])
    rows = [
        {"id": f"q{i}", "title": "Rivers", "context": f"River {i} is {i} km long.", "question": f"How long is river {i}?",
         "answers": {"text": [f"{i} km", f"{i}"], "answer_start": [10, 10]}}
        for i in range(7)
    ]
    pq.write_table(pa.Table.from_pylist(rows, squad), FOLDER / "squad.parquet", row_group_size=3)

    mmlu = pa.schema([("question", pa.large_string()), ("subject", pa.dictionary(pa.int8(), pa.string())),
                      ("choices", pa.list_(pa.string())), ("answer", pa.int64())])
    rows = [
        {"question": f"{i} + {i}?", "subject": "sums", "choices": [f"is {i * k}" for k in range(1, 5)], "answer": 1}
        for i in range(1, 6)
    ]
    pq.write_table(pa.Table.from_pylist(rows, mmlu), FOLDER / "mmlu.parquet", compression="zstd")

    part = pa.struct([("role", pa.string()), ("content", pa.string())])
    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    talk = [("user", "Hi."), ("assistant", "Hello.")]
    pq.write_table(
        pa.table({"messages": pa.array([[{"role": r, "content": c} for r, c in talk]] * 2, pa.list_(part))}),
        FOLDER / "messages.parquet", compression="gzip", data_page_version="2.0")
    pq.write_table(
        pa.table({"id": ["c1"], "conversations": pa.array(
            [[{"from": {"user": "human", "assistant": "gpt"}[r], "value": c} for r, c in talk]], pa.list_(turn))}),
        FOLDER / "share_gpt.parquet", compression="none")
    pq.write_table(pa.table({"text": ["One.", None, "Two."], "image": pa.array(
        [{"bytes": b"\xff\xfe", "path": "a.png"}] * 3, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}),
        FOLDER / "text.parquet")
    pq.write_table(
        pa.table({"input_ids": pa.array([[1, 2, 3], [4, 5, 0]], pa.list_(pa.int32())),
                  "attention_mask": pa.array([[1, 1, 1], [1, 1, 0]], pa.list_(pa.int8())),
                  "labels": pa.array([[-100, 2, 3], [-100, 5, -100]], pa.list_(pa.int64()))}),
        FOLDER / "tokens.parquet")

    # The bytes of a string column are whatever was put there.
    texts = [b"Q1?", b"Q\xff?", b"Q3?", b"", b"Q5?", b"Q6?"]
    offsets = [sum(map(len, texts[:i])) for i in range(len(texts) + 1)]
    buffers = [None, pa.array(offsets, pa.int32()).buffers()[1], pa.py_buffer(b"".join(texts))]
    question = pa.Array.from_buffers(pa.string(), len(texts), buffers)
    pq.write_table(
        pa.table({
            "id": ["a", "b", "a", "d", "e", "f"],
            "question": question,
            "options": pa.array([["x", "y"]] * 4 + [["x", "y"], ["x", "y"]], pa.list_(pa.string())),
            "answer": ["A", "A", "A", "A", "z", None],
            "blob": pa.array([b"\xff"] * 6, pa.binary()),
        }),
        FOLDER / "bad.parquet")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_types()
    write_sets()

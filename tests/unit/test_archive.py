import base64
import io
import os
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_fcn.benchmarks.archive import find_problems
from lstm_fcn.benchmarks.formats import parse
from lstm_fcn.benchmarks.problems import Description, import_archive, import_problem, load_description, read_problem
from lstm_fcn.benchmarks.summary import Declared, read_summary
from lstm_fcn.client.__main__ import main
from lstm_fcn.container.csv_header import HEADERLESS
from lstm_fcn.container.csv_reader import SeriesReader
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.preprocess import Preprocessing

TS = "@problemName Tiny\n@timeStamps false\n@univariate {univariate}\n@classLabel true a b\n@data\n"
UNIVARIATE, MULTIVARIATE = TS.format(univariate="true"), TS.format(univariate="false")
ARFF = "@relation x\n{}@attribute 'the class' {{a, b}}\n@data\n"
NUMERIC = "@attribute t0 numeric\n@ATTRIBUTE t1 REAL\n@attribute t2 numeric\n"
ARFF_FLAT = ARFF.format(NUMERIC)
ARFF_DEEP = ARFF.format(f"@attribute series relational\n{NUMERIC}@end series\n")

# Tiny/Tiny_TRAIN.tsv and Tiny_TEST.tsv in a zip file that is encrypted with the password "someone"
ENCRYPTED = """
UEsDBAoACQAAAO+mdF3V8JL7FAAAAAgAAAASAAAAVGlueS9UaW55X1RFU1QudHN2ohcTLz/mZYIiV5ZLya4QL39B+wBQSwcI1fCS
+xQAAAAIAAAAUEsDBAoACQAAAO+mdF2OQIu4GAAAAAwAAAATAAAAVGlueS9UaW55X1RSQUlOLnRzdnAHHLYNh+krItMWxJOME+7n
f+dXScA6SVBLBwiOQIu4GAAAAAwAAABQSwECHgMKAAkAAADvpnRd1fCS+xQAAAAIAAAAEgAAAAAAAAABAAAApIEAAAAAVGlueS9U
aW55X1RFU1QudHN2UEsBAh4DCgAJAAAA76Z0XY5Ai7gYAAAADAAAABMAAAAAAAAAAQAAAKSBVAAAAFRpbnkvVGlueV9UUkFJTi50
c3ZQSwUGAAAAAAIAAgCBAAAArQAAAAAA
"""


def put(archive: Path, train: str | None, test: str | None, suffix: str = ".tsv", name: str = "Tiny") -> None:
    (archive / name).mkdir(parents=True, exist_ok=True)
    for half, text in (("TRAIN", train), ("TEST", test)):
        if text is not None:
            (archive / name / f"{name}_{half}{suffix}").write_bytes(text.encode())


def convert(tmp_path: Path, train: str, test: str, suffix: str) -> tuple[str, str, Description]:
    """The two CSV files of a problem, and its description."""
    put(tmp_path / "archive", train, test, suffix)
    (problem,) = find_problems(tmp_path / "archive")
    outcome, description = import_problem(problem, tmp_path / "out")
    folder = tmp_path / "out" / "Tiny"
    assert outcome == "imported"
    assert load_description(folder) == description
    return (folder / "training/train.csv").read_text(), (folder / "test/test.csv").read_text(), description


@pytest.mark.parametrize(
    ("suffix", "train", "test"),
    [
        (".tsv", "a\t1.0\t-2.5\t1e-3\r\nb\t4\t5\t6\r\n", "b\t7\t8\t9"),
        (".txt", "  a  1.0 -2.5   1.0e-03 \n b 4\t5 6\n\n", "b 7 8 9\n"),
        ("", "a,1.0,-2.5,0.001\nb, 4, 5, 6\n", "b,7,8,9\n"),
        (".ts", f"\ufeff#Zo\u00eb: x\n\n{UNIVARIATE}1.0,-2.5,1E-3:a\n4,5,6:b\n", f"{UNIVARIATE}7,8,9:b"),
        (".arff", f"% @data\n{ARFF_FLAT}1.0,-2.5,1E-3,a\n4,5,6,'b'\n", f"{ARFF_FLAT}7,8,9,b"),
    ],
)
def test_every_format_gives_the_same(tmp_path: Path, suffix: str, train: str, test: str) -> None:
    first, second, found = convert(tmp_path, train, test, suffix)
    assert first == "a,1,-2.5,0.001\nb,4,5,6\n"
    assert second == "b,7,8,9\n"
    assert (found.train, found.test, found.length, found.shortest) == (2, 1, 3, 3)
    assert (found.classes, found.num_variables, found.missing) == (["a", "b"], 1, False)


@pytest.mark.parametrize(
    ("suffix", "train", "test"),
    [
        (".ts", f"{MULTIVARIATE}1,2:3,4:a\n5,?,7:8,9,10:b\n", f"{MULTIVARIATE}1:2:a\n"),
        (".arff", rf"{ARFF_DEEP}'1,2,?\n3,4,?',a" + "\n" + r'"5,?,7\n8,9,10",b', rf"{ARFF_DEEP}'1,?,?\n2,?,?',a"),
    ],
)
def test_variables_are_filled_up_to_the_longest_series(tmp_path: Path, suffix: str, train: str, test: str) -> None:
    first, second, found = convert(tmp_path, train, test, suffix)
    assert first == "a,1,2,,3,4,\nb,5,,7,8,9,10\n"
    assert second == "a,1,,,2,,\n"
    assert (found.length, found.shortest, found.num_variables, found.missing) == (3, 1, 2, True)


def test_missing_values_at_the_end_of_a_row_end_the_series(tmp_path: Path) -> None:
    first, second, found = convert(tmp_path, "1\t1\tNaN\tNaN\n2\t1\t2\tNaN\n", "1\tNaN\t2\tNaN\n", ".tsv")
    assert (first, second) == ("1,1,\n2,1,2\n", "1,,2\n")
    assert (found.length, found.shortest, found.missing) == (2, 1, True)
    first, _, found = convert(tmp_path / "ts", f"{UNIVARIATE}1,?:a\n1,2:b\n", f"{UNIVARIATE}1,2:b\n", ".ts")
    assert first == "a,1,\nb,1,2\n"
    assert (found.length, found.shortest, found.missing) == (2, 2, True)  # these files say where a series ends


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        *[("1.0000000e+00", "1"), ("-1.0000000e+00", "-1"), ("3.0", "3"), ("1", "1"), ("01", "01"), ("1.5", "1.5")],
        *[("Standing", "Standing"), ("1e400", "1e400"), ("-0.0", "0"), ("Gr\u00fcn", "Gr\u00fcn")],
    ],
)
def test_labels_stay_text_but_integers_lose_their_decimals(written: str, expected: str) -> None:
    assert parse(f"{written}\t1\n".encode(), "tsv", "file").labels == [expected]
    header = f"@classLabel true {written}\n@data\n"
    assert parse(f"{header}1:{written}".encode(), "ts", "file").labels == [expected]


def test_classes_are_in_the_order_in_which_a_model_has_them(tmp_path: Path) -> None:
    train = "10\t1\n-1\t2\n2\t3\n"
    assert convert(tmp_path, train, train, ".tsv")[2].classes == ["-1", "2", "10"]


@settings(max_examples=30)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=5, max_size=20))
def test_numbers_come_back_from_the_csv_as_they_are(tmp_path_factory: pytest.TempPathFactory, row: list[float]) -> None:
    text = "\t".join(map(repr, row))
    folder = tmp_path_factory.mktemp("archive")
    rows = f'a,"b\t{text}\n2\t{text}\n'
    csv, _, _ = convert(folder, rows, rows, ".tsv")
    shutil.rmtree(folder)
    (block,) = SeriesReader(io.BytesIO(csv.encode()), "csv", columns=HEADERLESS)
    assert block.labels == ['a,"b', "2"]
    np.testing.assert_array_equal(block.series.ravel(), row * 2)
    assert len(csv) <= len(rows) + len('""""')


def test_training_reads_what_is_written(tmp_path: Path) -> None:
    csv, _, _ = convert(tmp_path, f"{MULTIVARIATE}1,2:3,4:a\n5,?,7:8,9,10:b\n", f"{MULTIVARIATE}1:2:a\n", ".ts")
    rules = Preprocessing(missing_values="interpolate", length_policy="pad")
    (block,) = SeriesReader(io.BytesIO(csv.encode()), "csv", columns=HEADERLESS, preprocessing=rules)
    np.testing.assert_array_equal(block.series.ravel(), [1, 2, np.nan, 3, 4, np.nan, 5, np.nan, 7, 8, 9, 10])


GOOD = "1\t1\t2\n2\t3\t4\n"


@pytest.mark.parametrize(
    ("suffix", "train", "message"),
    [
        (".tsv", "1\t1\t2\n2\t3\tx4\n", "Tiny/Tiny_TRAIN.tsv, row 2, column 3 contains 'x4', which is not a number"),
        (".tsv", "1\t1\t2\n2\t3\t1_0\n", "row 2, column 3 contains '1_0'"),
        (".tsv", "1\t1\t2\n2\t3\t1,5\n", "row 2, column 3 contains '1,5'"),
        (".tsv", "1\t1\t2\n2\tinf\t3\n", "row 2, column 2 contains an infinite value"),
        (".tsv", "1\t1\t2\n2\t3\t1e999\n", "row 2, column 3 contains an infinite value"),
        (".tsv", "1\t1\t2\n\n2\t3\n", "row 3 has 1 values; the first row has 2"),
        (".tsv", "1\t1\t2\n2\t3\t4\t5\n", "row 2 has 3 values"),
        (".tsv", "1\t1\t2\nNaN\t3\t4\n", "row 2 has no label"),
        (".tsv", "1\t1\t2\n2\tNaN\tNaN\n", "row 2 has only missing values"),
        (".tsv", "1,1,2\n2,3,4\n", "row 1 has only a label ('1,1,2')"),
        (".tsv", "1\t1\t2\n1\t3\t4\n", "Tiny_TRAIN.tsv has only one class ('1')"),
        (".tsv", "1\t1\n2\t3\n", "Tiny_TRAIN.tsv has 1 values in a row and Tiny_TEST.tsv 2"),
        (".tsv", "\n", "Tiny/Tiny_TRAIN.tsv is empty"),
        (".ts", "1,2:a\n", "has no line @data"),
        (".ts", UNIVARIATE, "has no series"),
        (".ts", "@classLabel false\n@data\n1:2\n", "declares no classes"),
        (".ts", "@targetlabel true\n@data\n1:2\n", "declares no classes"),
        (".ts", "@timestamps TRUE\n@classLabel true a\n@data\n", "time stamps"),
        (".ts", f"@dimensions two\n{UNIVARIATE}", "@dimensions two in its header"),
        (".ts", f"{UNIVARIATE}1,2:a\n1,2:c\n", "row 7 has the label 'c', which the header does not declare (a, b)"),
        (".ts", f"{UNIVARIATE}1,2:3,4:a\n", "row 6 has 2 variables; the header says 1"),
        (".ts", f"@dimensions 3\n{MULTIVARIATE}1,2:3,4:a\n", "row 7 has 2 variables; the header says 3"),
        (".ts", f"{MULTIVARIATE}1,2:3,4:a\n1,2:b\n", "row 7 has 1 variables; the first row has 2"),
        (".ts", f"{MULTIVARIATE}1,2:3:a\n", "row 6 has variables of different lengths (2, 1)"),
        (".ts", f"{MULTIVARIATE}1,2:3,x:a\n", "row 6, column 4 contains 'x'"),
        (".ts", f"{UNIVARIATE}1,2\n", "row 6 has no label after a colon"),
        (
            ".ts",
            f"@equalLength true\n{UNIVARIATE}1,2:a\n1:b\n",
            "row 8 has 1 values; the first row has 2",
        ),
        (
            ".ts",
            f"@equalLength true\n@seriesLength 3\n{UNIVARIATE}1,2:a\n",
            "row 8 has 2 values; the header says 3",
        ),
        (".ts", f"@seriesLength 1\n{UNIVARIATE}1,2:a\n", "the header says at most 1"),
        (".arff", f"{ARFF_FLAT}1,2,a\n", "row 7 has 2 values; the header says 3"),
        (".arff", f"{ARFF_FLAT}1,2,3,c\n", "row 7 has the label 'c'"),
        (".arff", f"{ARFF_FLAT}1,2,x,a\n", "row 7, column 3 contains 'x'"),
        (".arff", f"{ARFF_DEEP}1,2,3,a\n", "row 9 does not start with a quoted series"),
        (".arff", f"@attribute c {{a}}\n{NUMERIC}@data\n", "row 2 declares an attribute after the class"),
        (".arff", "@attribute s string\n@data\n", "row 1 declares an attribute of the type 'string'"),
        (".arff", f"{NUMERIC}@data\n1,2,3\n", "declares no numeric attributes followed by a class"),
    ],
)
def test_refused(tmp_path: Path, suffix: str, train: str, message: str) -> None:
    put(tmp_path / "archive", train, GOOD if suffix == ".tsv" else train, suffix)
    (problem,) = find_problems(tmp_path / "archive")
    with pytest.raises(UserError, match=re.escape(message)):
        import_problem(problem, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(UserError, match="row 1 has a label that is not valid UTF-8"):
        parse(b"\xff\t1\n", "tsv", "file")
    with pytest.raises(UserError, match="row 1, column 2 contains"):
        parse(b"1\t\xff\n", "tsv", "file")


def test_both_halves_have_the_same_variables(tmp_path: Path) -> None:
    put(tmp_path, f"{MULTIVARIATE}1:2:a\n1:2:b\n", f"{MULTIVARIATE}1:a\n", ".ts")
    with pytest.raises(UserError, match=r"Tiny_TRAIN.ts has 2 variables and Tiny_TEST.ts 1"):
        read_problem(find_problems(tmp_path)[0])


def test_a_missing_half(tmp_path: Path) -> None:
    put(tmp_path, GOOD, None)
    put(tmp_path, None, "1 1 2", ".txt")
    with pytest.raises(
        UserError, match=r"same format in the same folder; found only Tiny/\S+TEST.txt, Tiny/\S+TRAIN.tsv"
    ):
        read_problem(find_problems(tmp_path)[0])


def test_of_several_formats_the_best_whole_one_is_taken(tmp_path: Path) -> None:
    put(tmp_path, UNIVARIATE, None, ".ts")
    put(tmp_path, GOOD, GOOD, ".tsv")
    put(tmp_path, "wrong", "wrong", ".arff")
    (problem,) = find_problems(tmp_path)
    assert read_problem(problem).description.format == "tsv"


def test_of_several_folders_the_nearest_to_the_top_is_taken(tmp_path: Path) -> None:
    put(tmp_path / "archive", GOOD, GOOD)
    put(tmp_path / "archive/adjusted", GOOD * 2, GOOD)
    (problem,) = find_problems(tmp_path)
    assert read_problem(problem).description.train == 2
    put(tmp_path / "another", GOOD, GOOD)
    with pytest.raises(UserError, match="twice, in another/Tiny and in archive/Tiny"):
        read_problem(find_problems(tmp_path)[0])


def test_files_of_no_problem_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, GOOD, GOOD)
    for path in (
        "README.txt",
        "Tiny/Tiny.txt",
        "Tiny/Other_TRAIN.tsv",
        "Tiny/Tiny_TRAIN.csv.gz",
        ".Hid/.Hid_TRAIN.tsv",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("x")
    assert [problem.name for problem in find_problems(tmp_path)] == ["Tiny"]
    assert [problem.name for problem in find_problems(tmp_path / "Tiny")] == ["Tiny"]


def test_an_archive_without_problems(tmp_path: Path) -> None:
    (tmp_path / "file.zip").write_bytes(b"PK")
    for path, message in ((tmp_path, "no problems"), (tmp_path / "x", "No such file"), (tmp_path / "file.zip", "zip")):
        with pytest.raises(UserError, match=message):
            find_problems(path)


def test_links_do_not_lead_out_of_the_archive(tmp_path: Path) -> None:
    put(tmp_path / "archive", GOOD, None)
    (tmp_path / "secret.tsv").write_text(GOOD)
    (tmp_path / "archive/Tiny/Tiny_TEST.tsv").symlink_to("../../secret.tsv")
    with pytest.raises(UserError, match=r"Tiny_TEST.tsv is a link to a file outside"):
        read_problem(find_problems(tmp_path / "archive")[0])


# Zip files


def pack(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in members.items():
            file.writestr(name, text)
    return path


def test_a_zip_file_is_read_like_a_folder(tmp_path: Path) -> None:
    members = {"./top//Tiny/Tiny_TRAIN.tsv": GOOD, "./top//Tiny/Tiny_TEST.tsv": GOOD, "__MACOSX/Tiny/._Tiny_TRAIN": "x"}
    (problem,) = find_problems(pack(tmp_path / "archive.zip", members))
    assert read_problem(problem).description.train == 2
    flat = pack(tmp_path / "Tiny.zip", {"Tiny_TRAIN.tsv": GOOD, "Tiny_TEST.tsv": GOOD, "Tiny.txt": "x"})
    assert read_problem(find_problems(flat)[0]).train.series.tolist() == [[[1, 2]], [[3, 4]]]


@pytest.mark.parametrize("name", ["../../Tiny/Tiny_TRAIN.tsv", "/Tiny/Tiny_TRAIN.tsv", "..\\Tiny_TRAIN.tsv", "C:\\x"])
def test_a_zip_file_with_a_path_outside(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / "archive.zip", {name: GOOD, "Tiny/Tiny_TEST.tsv": GOOD})
    with pytest.raises(UserError, match="contains a path outside the archive"):
        find_problems(path)


def test_the_password_of_a_zip_file(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    path.write_bytes(base64.b64decode(ENCRYPTED))
    assert read_problem(find_problems(path, "someone")[0]).train.series.tolist() == [[[0.5]], [[1.5]]]
    with pytest.raises(UserError, match=r"is encrypted. Give its password with --password"):
        find_problems(path)
    with pytest.raises(UserError, match="the password is wrong"):
        find_problems(path, "somebody")


def test_a_damaged_zip_file(tmp_path: Path) -> None:
    members = {f"Tiny/Tiny_{half}.tsv": GOOD for half in ("TRAIN", "TEST")}
    path = pack(tmp_path / "archive.zip", members)
    content = bytearray(path.read_bytes())
    content[content.index(b"Tiny_TRAIN.tsv") + len("Tiny_TRAIN.tsv") + 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"Tiny_TRAIN.tsv cannot be unpacked from .*archive.zip"):
        read_problem(find_problems(path)[0])


def test_large_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "archive.zip", {f"Tiny/Tiny_{half}.tsv": GOOD for half in ("TRAIN", "TEST")})
    monkeypatch.setattr("lstm_fcn.benchmarks.archive.MAX_FILE_BYTES", len(GOOD) - 1)
    with pytest.raises(UserError, match=f"Tiny_TRAIN.tsv has {len(GOOD)} bytes; the limit is {len(GOOD) - 1}"):
        read_problem(find_problems(path)[0])


# Summaries


def test_the_summary_of_the_ucr_archive() -> None:
    text = (
        "ID,Type,Name,Train ,Test ,Class,Length,ED (w=0),DTW (learned_w) \n"
        "1,Image,Adiac,390,391,37,176,0.3887,0.3913 (3)\n"
        "2,Sensor,PLAID,537,537,11,Vary,0.4786,0.1862 (3)\n"
    )
    assert read_summary(text.encode(), "x") == {
        "adiac": Declared("x", 390, 391, 37, None, 176),
        "plaid": Declared("x", 537, 537, 11, None, None),
    }


@pytest.mark.parametrize(
    ("text", "shortest", "length"), [("150", None, 150), ("7-29", 7, 29), ("455(max; varies)", None, 455)]
)
def test_a_simple_summary(text: str, shortest: int | None, length: int) -> None:
    content = f"\ufeffname,kind,train,test,length,classes,source\nTiny,univariate,2,1,{text},3,x\n"
    assert read_summary(content.encode(), "x") == {"tiny": Declared("x", 2, 1, 3, shortest, length)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column name"),
        ("name,train,test,length\n", "has no column class"),
        ("name,train,test,length,class\nA,1,1,1,2\nB,1,,1,2\n", "row 3: test is ''"),
        ("name,train,test,length,class\nA,1,1,long,2\n", "row 2: the length is 'long'"),
    ],
)
def test_a_summary_that_is_wrong(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_summary(text.encode(), "x")


def test_counts_must_be_as_declared(tmp_path: Path) -> None:
    put(tmp_path / "archive", GOOD, GOOD)
    (problem,) = find_problems(tmp_path / "archive")
    right = {"tiny": Declared("sums.csv", 2, 2, 2, None, 2)}
    wrong = {"tiny": Declared("sums.csv", 3, 2, 4, 1, 2)}
    message = "differ from sums.csv: 2 series in train, not 3; 2 classes, not 4; 2 values in the shortest series, not 1"
    with pytest.raises(UserError, match=message):
        import_problem(problem, tmp_path / "out", wrong)
    assert not (tmp_path / "out").exists()
    assert import_problem(problem, tmp_path / "out", right)[0] == "imported"
    with pytest.raises(UserError, match="2 series in train, not 3"):
        import_problem(problem, tmp_path / "out", wrong)


# Running it again, and the command


def test_only_what_has_changed_is_imported_again(tmp_path: Path) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    put(archive, GOOD, GOOD)

    def outcome() -> str:
        return import_problem(find_problems(archive)[0], out)[0]

    assert [outcome(), outcome()] == ["imported", "unchanged"]
    (out / "Tiny/test/test.csv").unlink()
    assert [outcome(), outcome()] == ["imported", "unchanged"]
    put(archive, GOOD.replace("4", "5"), GOOD)
    assert outcome() == "imported"
    assert (out / "Tiny/training/train.csv").read_text() == "1,1,2\n2,3,5\n"
    put(archive, "wrong", GOOD)
    with pytest.raises(UserError, match="row 1"):
        outcome()
    assert (out / "Tiny/training/train.csv").read_text() == "1,1,2\n2,3,5\n"
    assert [path.name for path in out.iterdir()] == ["Tiny"]


def test_a_folder_that_was_not_imported_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, GOOD, GOOD)
    with pytest.raises(UserError, match=r"Tiny is not an imported problem: problem.json cannot be read"):
        import_problem(find_problems(tmp_path)[0], tmp_path)
    (tmp_path / "Tiny/problem.json").write_text('{"name": "Tiny"}')
    with pytest.raises(UserError, match=r"problem.json is damaged: train: Field required"):
        import_problem(find_problems(tmp_path)[0], tmp_path)
    assert (tmp_path / "Tiny/Tiny_TRAIN.tsv").read_text() == GOOD


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lstm_fcn.benchmarks.problems._write_csv", fail)
    put(tmp_path / "archive", GOOD, GOOD)
    with pytest.raises(UserError, match="Tiny: No space left on device"):
        import_problem(find_problems(tmp_path / "archive")[0], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_mistake_in_one_problem_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "archive"
    put(archive, "wrong", GOOD, name="Bad")
    put(archive, GOOD, f"{GOOD}7\t1\t2\n", name="Unseen")
    put(archive, "1\tNaN\t1\n2\t1\tNaN\n", GOOD)
    (archive / "DataSummary.csv").write_text(
        "Name,Train ,Test ,Class,Length\nBad,1,2,2,2\nTINY,2,2,2,Vary\nOther,1,1,1,1\n"
    )
    assert import_archive(archive, tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "Tiny: imported; train 2, test 2, length 1-2, classes 2, variables 1, missing values",
        "Unseen: imported; train 2, test 3, length 2, classes 3, variables 1",
        "imported 2, unchanged 0, refused 1",
    ]
    assert printed.err.splitlines() == [
        "Bad: refused: Bad/Bad_TRAIN.tsv, row 1 has only a label ('wrong'), or the separators of another format.",
        "Unseen: WARNING: not in the summary, so its counts are not checked",
        "Unseen: WARNING: test series have classes not in train: 7",
    ]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "archive", GOOD, GOOD)
    put(tmp_path / "archive", "wrong", GOOD, name="Bad")

    def run(*arguments: str) -> int:
        return main(["benchmark", "import", str(tmp_path / "archive"), str(tmp_path / "out"), *arguments])

    assert run("--problem", "Tiny") == 0
    assert run() == 2
    assert capsys.readouterr().out.endswith("imported 0, unchanged 1, refused 1\n")
    assert run("--problem", "Tin") == 2
    assert capsys.readouterr().err == "Error: The archive has no problem Tin; did you mean Tiny?\n"
    assert run("--summary", str(tmp_path / "none.csv")) == 2
    assert "none.csv cannot be read: No such file" in capsys.readouterr().err


@pytest.mark.skipif(
    not (Path(os.environ.get("TIME_SERIES_DATA") or "/none") / "manifest.csv").is_file(),
    reason="TIME_SERIES_DATA names no folder with problems in ucr/ and uea/, and a manifest.csv",
)
def test_problems_of_the_archives(tmp_path: Path) -> None:
    data = Path(os.environ["TIME_SERIES_DATA"])
    names = ["DodgerLoopGame", "GesturePebbleZ1", "GunPoint"]
    assert import_archive(data / "ucr", tmp_path, data / "manifest.csv", names) == 0
    assert import_archive(data / "uea", tmp_path, data / "manifest.csv", ["JapaneseVowels"]) == 0
    found = [load_description(tmp_path / name) for name in (*names, "JapaneseVowels")]
    assert [(item.length, item.missing) for item in found] == [(288, True), (455, False), (150, False), (29, False)]

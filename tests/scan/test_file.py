"""Files in constant memory, and the command that scans them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flyball.errors import InputError
from flyball.scan import Pack, Scanner, file
from flyball.scan.file import scan_file
from scan.interrupts import interrupted_after

SCANNER = Scanner(on_long="window")
HARM = "how to kill someone"


def test_lines_with_findings_are_yielded_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"clean\n{HARM}\r\n\nmore\n  {HARM}", encoding="utf-8", newline="")
    lines = SCANNER.scan_file(path)
    found = list(lines)
    assert [(line.number, line.text) for line in found] == [(2, HARM), (5, f"  {HARM}")]
    assert found[1].report == SCANNER.scan(f"  {HARM}")
    assert (lines.scanned, lines.flagged) == (5, 2)


@pytest.mark.parametrize("content", [b"", b"\n", b"\n\n\n", b"clean", b"\0\0\xff\n"])
def test_a_file_with_nothing_to_say_yields_nothing(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    lines = SCANNER.scan_file(path)
    assert list(lines) == []
    assert lines.scanned == content.count(b"\n") + (not content.endswith(b"\n") and bool(content))


def test_a_file_is_read_in_blocks_and_a_line_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "BLOCK", 100)
    monkeypatch.setattr(file, "LONGEST", 400)
    text = "".join(f"line {number} {HARM if number % 7 == 0 else ''}\n" for number in range(300))
    lines = list(scan_file(SCANNER, io.BytesIO(text.encode()), None, 1))
    assert [line.number for line in lines] == [number + 1 for number in range(300) if number % 7 == 0]
    endless = io.BytesIO(b"x " * 10_000 + HARM.encode())
    assert len(list(scan_file(SCANNER, endless, None, 1))) == 1
    assert max(len(block) for block, _ in file._blocks(io.BytesIO(b"x" * 10_000))) <= 500


def test_bytes_that_are_no_utf8_are_scanned_around_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xfe " + HARM.encode() + b" \xe9\n")
    (line,) = SCANNER.scan_file(path)
    (finding,) = line.report.findings
    assert line.text[finding.start : finding.end] == HARM
    assert line.text.encode("utf-8", "surrogateescape") == path.read_bytes().rstrip(b"\n")


def test_a_column_of_parquet_is_streamed(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    path = tmp_path / "a.parquet"
    texts = [HARM if number % 1000 == 0 else None if number % 3 == 0 else "clean" for number in range(20_000)]
    pq.write_table(pa.table({"text": texts, "n": range(20_000)}), path)
    lines = SCANNER.scan_file(path)
    assert [line.number for line in lines] == list(range(0, 20_000, 1000))
    assert lines.scanned == 20_000
    assert [line.number for line in SCANNER.scan_file(path, column="text")] == list(range(0, 20_000, 1000))
    with pytest.raises(InputError, match="`column` is `n`: the file's columns of text are text"):
        list(SCANNER.scan_file(path, column="n"))
    pq.write_table(pa.table({"a": ["x"], "b": ["y"]}), path)
    with pytest.raises(InputError, match=r"2 columns of text \(a, b\)"):
        list(SCANNER.scan_file(path))
    with pytest.raises(InputError, match="only a Parquet file has columns"):
        SCANNER.scan_file(tmp_path / "a.txt", column="text")


def test_a_truncated_parquet_is_an_error_after_what_was_found(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"{HARM} {n}" for n in range(30_000)]}), path, row_group_size=10_000,
                   compression="none", use_dictionary=False)  # fmt: skip
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read as Parquet after 0 rows"):
        list(SCANNER.scan_file(path))
    # Damage in the middle is met after the rows before it.
    path.write_bytes(whole[: len(whole) // 2] + bytes(2000) + whole[len(whole) // 2 + 2000 :])
    lines = SCANNER.scan_file(path)
    with contextlib.suppress(InputError):
        list(lines)
    assert lines.flagged > 0
    with pytest.raises(FileNotFoundError):
        list(SCANNER.scan_file(tmp_path / "missing.txt"))


def flyball(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "flyball", "scan", *arguments], input=given, capture_output=True, check=False
    )


def test_the_command_says_what_it_found_and_ends_with_3() -> None:
    done = flyball("-", given=f"clean\n{HARM}\n".encode())
    assert done.returncode == 3
    assert done.stdout.decode() == f"-:2: high violence violence.kill: '{HARM}'\n"
    assert done.stderr.decode() == "1 of 2 lines flagged by default 0.2.0\n"


def test_the_command_ends_with_0_where_nothing_was_found() -> None:
    done = flyball(given=b"clean\n")
    assert (done.returncode, done.stdout) == (0, b"")


def test_the_command_writes_json_lines_and_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"x\n{HARM}\n", encoding="utf-8")
    (line,) = flyball(str(path), "--format", "jsonl").stdout.splitlines()
    row = json.loads(line)
    assert (row["file"], row["line"], row["severity"]) == (str(path), 2, "high")
    assert row["findings"][0]["rule_id"] == "violence.kill"
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    done = flyball(str(path), "--parquet", str(tmp_path / "out.parquet"))
    assert (done.returncode, done.stdout) == (3, b"")
    (written,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (written["line"], written["rule"], written["text"]) == (2, "violence.kill", HARM)


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("missing.txt",), "missing.txt", 1),
        (("--pack", "nonesuch"), "`pack` is `nonesuch`", 2),
        (("--pack", "missing.toml"), "cannot be read", 2),
        (("--column", "x"), "only a Parquet file has columns", 2),
        (("--threads", "0"), "`--threads` is 0: it must be 1 or more", 2),
    ],
)
def test_the_command_says_what_it_cannot_do(arguments: tuple[str, ...], message: str, code: int) -> None:
    done = flyball(*arguments)
    assert done.returncode == code
    assert done.stderr.startswith(b"error: ")
    assert message in done.stderr.decode()


def test_a_file_that_cannot_be_read_does_not_keep_the_others_from_being_scanned(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    good, broken = tmp_path / "good.txt", tmp_path / "broken.parquet"
    good.write_text(f"{HARM}\n", encoding="utf-8")
    table = pa.table({"text": [f"{HARM} {n}" for n in range(30_000)]})
    pq.write_table(table, broken, row_group_size=10_000, compression="none", use_dictionary=False)
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2] + bytes(2000) + whole[len(whole) // 2 + 2000 :])
    out = tmp_path / "out.parquet"
    done = flyball("missing.txt", str(broken), str(tmp_path), str(good), "--parquet", str(out))
    assert done.returncode == 1
    said = done.stderr.decode()
    assert said.count("error: ") == 3
    assert "No such file or directory: 'missing.txt'" in said
    assert f"`{broken}` cannot be read as Parquet after " in said
    assert said.endswith("3 of 4 files could not be read to their end\n")
    found = {row["file"] for row in pq.read_table(out).to_pylist()}
    assert found == {str(broken), str(good)}, "what was found before the damage, and in the next file"


def test_a_column_is_named_for_the_parquet_files_among_others(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    pq.write_table(pa.table({"a": [HARM], "b": ["clean"]}), tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text(HARM, encoding="utf-8")
    done = flyball(str(tmp_path / "a.txt"), str(tmp_path / "a.parquet"), "--column", "a")
    assert (done.returncode, len(done.stdout.splitlines())) == (3, 2)


def test_nothing_at_all_is_clean_and_says_that_it_was_nothing() -> None:
    done = flyball(given=b"")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.decode() == "0 of 0 lines flagged by default 0.2.0\n"


def test_bytes_that_are_no_utf8_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"clean\n\xff\n\xe9 " + HARM.encode() + b"\nclean \xc3\xa9\n")
    lines = SCANNER.scan_file(path)
    assert [line.number for line in lines] == [3]
    assert (lines.scanned, lines.flagged, lines.malformed) == (4, 1, 2)
    assert b"1 of 4 lines flagged by default" in flyball(str(path)).stderr
    assert b"; 2 hold bytes that are no UTF-8, which were scanned around\n" in flyball(str(path)).stderr
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    texts = pa.array([b"clean", None, b"\xff " + HARM.encode() + b"\xc3", b"\xe9"], pa.binary())
    for array in (texts.view(pa.string()), texts.view(pa.string()).dictionary_encode()):
        pq.write_table(pa.table({"text": array}), tmp_path / "a.parquet")
        lines = SCANNER.scan_file(tmp_path / "a.parquet")
        (line,) = lines
        assert (line.number, line.report.findings[0].text) == (2, HARM)
        assert line.text.encode("utf-8", "surrogateescape") == texts[2].as_py()
        assert (lines.scanned, lines.flagged, lines.malformed) == (4, 1, 2)


def test_a_long_line_is_scanned_in_pieces_and_counted_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "BLOCK", 100)
    monkeypatch.setattr(file, "LONGEST", 400)
    long = f"{HARM} " + "words " * 500 + HARM
    source = io.BytesIO(f"first\n{long}\n{HARM}\n".encode())
    lines = scan_file(SCANNER, source, None, 1)
    assert [line.number for line in lines] == [2, 2, 3]
    assert (lines.scanned, lines.flagged) == (3, 2)


@pytest.mark.parametrize("character", ["é", "\u20ac", "\U0001f600", "a", "a "])
@pytest.mark.parametrize("before", ["", "x", "xy", "xyz"])
def test_a_line_is_not_cut_within_a_character_or_a_word(character: str, before: str) -> None:
    whole = (before + character * 300).encode()
    for end in range(len(whole) - 8, len(whole) + 1):
        head, tail = file._cut(whole[:end])
        assert head + tail == whole[:end]
        assert head.decode() == (before + character * 300)[: len(head.decode())]
        if character == "a ":
            assert head.endswith(b" ")


@pytest.mark.parametrize("lines", [False, True])
def test_a_line_as_long_as_one_likes_is_read_in_constant_memory(lines: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """`FLYBALL_LINE=1000000000` makes it a gigabyte."""
    size = int(os.environ.get("FLYBALL_LINE", "40000000"))
    path = tmp_path / "a.txt"
    unit = b"words and words and words\n" if lines else b"words and words and words "
    with path.open("wb") as out:
        for _ in range(size // (len(unit) * 40_000)):
            out.write(unit * 40_000)
        out.write(b" " + HARM.encode())
    program = (
        "import sys; from pathlib import Path; from flyball.scan import Scanner\n"
        "b = Scanner(on_long='window').scan_file(sys.argv[1])\n"
        "status = Path('/proc/self/status')\n"
        "peak = status.read_text().split('VmHWM:')[1].split()[0] if status.exists() else 0\n"
        "print(len(list(b)), b.flagged, peak)"
    )
    # Not `ru_maxrss`, which a process inherits from the one that forked it.
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    found, flagged, peak = map(int, done.stdout.split())
    assert (found, flagged) == (1, 1)
    assert peak < 600_000, "kilobytes, whatever the size of the file"


def test_a_line_over_the_limit_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\nb\n" + "x" * 200, encoding="utf-8")
    small = Scanner(max_chars=100)
    with pytest.raises(InputError, match=r"a.txt`, where `texts` are its lines: `texts\[3\]` has 200 characters"):
        list(small.scan_file(path))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that send a signal")
def test_a_signal_ends_a_file_that_takes_long_and_what_was_found_stays_found(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with path.open("w", encoding="utf-8") as out:
        out.write("abcdefghijk1\n" + "short\n" * 1_000_000)
        for _ in range(200):
            out.write("letters and words " * 20_000 + "\n")
    rules = [{"id": str(n), "category": "c", "pattern": f"[a-z]{{{n},}}[0-9]"} for n in range(9, 60)]
    lines = Scanner(Pack.from_rules(rules), on_long="window").scan_file(path, threads=1)
    assert next(lines).number == 1
    with pytest.raises(KeyboardInterrupt), interrupted_after(0.1):
        list(lines)
    assert lines.flagged == 1
    assert lines.scanned > 1

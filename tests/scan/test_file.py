"""Files in constant memory, and the command that scans them."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from flyball.errors import InputError
from flyball.scan import Scanner, file
from flyball.scan.file import scan_file

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
    assert max(len(block) for block in file._blocks(io.BytesIO(b"x" * 10_000))) <= 500


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
    assert done.stdout.decode() == f"-:2: critical violence violence.kill-person: '{HARM}'\n"
    assert done.stderr.decode() == "1 of 2 lines flagged by default 0.1.0\n"


def test_the_command_ends_with_0_where_nothing_was_found() -> None:
    done = flyball(given=b"clean\n")
    assert (done.returncode, done.stdout) == (0, b"")


def test_the_command_writes_json_lines_and_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"x\n{HARM}\n", encoding="utf-8")
    (line,) = flyball(str(path), "--format", "jsonl").stdout.splitlines()
    row = json.loads(line)
    assert (row["file"], row["line"], row["severity"]) == (str(path), 2, "critical")
    assert row["findings"][0]["rule_id"] == "violence.kill-person"
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    done = flyball(str(path), "--parquet", str(tmp_path / "out.parquet"))
    assert (done.returncode, done.stdout) == (3, b"")
    (written,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (written["line"], written["rule"], written["text"]) == (2, "violence.kill-person", HARM)


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("missing.txt",), "missing.txt", 1),
        (("--pack", "nonesuch"), "`pack` is `nonesuch`", 2),
        (("--pack", "missing.toml"), "cannot be read", 2),
        (("--column", "x"), "only a Parquet file has columns", 1),
    ],
)
def test_the_command_says_what_it_cannot_do(arguments: tuple[str, ...], message: str, code: int) -> None:
    done = flyball(*arguments)
    assert done.returncode == code
    assert done.stderr.startswith(b"error: ")
    assert message in done.stderr.decode()

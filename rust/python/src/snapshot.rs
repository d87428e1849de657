//! The copy, check and checksum of snapshots as Python functions over arrays of bytes.

use flyball_core::snapshot::{self, Error, Lane, Seen, Source, Span, Target};
use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray1, PyReadwriteArray1};
use pyo3::prelude::*;

use crate::error::invalid;

type Bytes<'py> = Bound<'py, PyArray1<u8>>;
/// The checksum of each piece, and where its first value that is not finite begins.
type Findings = Vec<(u64, Option<usize>)>;

/// Copy each source to its offset in the arena; return its checksum, and the offset within it of
/// the first value that is not finite.
#[pyfunction]
#[allow(
    clippy::needless_pass_by_value,
    reason = "sequences of Python objects are converted"
)]
pub(crate) fn snapshot_gather(
    arena: &Bytes<'_>,
    offsets: Vec<usize>,
    sources: Vec<Bytes<'_>>,
    lanes: Vec<String>,
    threads: usize,
) -> PyResult<Findings> {
    let py = arena.py();
    same_length("offsets", offsets.len(), "sources", sources.len())?;
    same_length("lanes", lanes.len(), "sources", sources.len())?;
    let mut arena = writable(arena)?;
    let arena = arena.as_slice_mut().map_err(|_| not_contiguous())?;
    let borrowed: Vec<_> = sources.iter().map(readable).collect::<PyResult<_>>()?;
    let mut pieces = Vec::with_capacity(borrowed.len());
    for ((bytes, offset), name) in borrowed.iter().zip(offsets).zip(&lanes) {
        pieces.push(Source {
            bytes: bytes.as_slice().map_err(|_| not_contiguous())?,
            offset,
            lane: lane(name)?,
        });
    }
    let seen = py.detach(|| snapshot::gather(&pieces, arena, threads));
    findings(seen)
}

/// Fill each target from its offset in the arena; return the checksum of the bytes that went there.
#[pyfunction]
#[allow(
    clippy::needless_pass_by_value,
    reason = "sequences of Python objects are converted"
)]
pub(crate) fn snapshot_scatter(
    arena: &Bytes<'_>,
    offsets: Vec<usize>,
    targets: Vec<Bytes<'_>>,
    threads: usize,
) -> PyResult<Vec<u64>> {
    let py = arena.py();
    same_length("offsets", offsets.len(), "targets", targets.len())?;
    let arena = readable(arena)?;
    let arena = arena.as_slice().map_err(|_| not_contiguous())?;
    let mut borrowed: Vec<_> = targets.iter().map(writable).collect::<PyResult<_>>()?;
    let mut pieces = Vec::with_capacity(borrowed.len());
    for (bytes, offset) in borrowed.iter_mut().zip(offsets) {
        let bytes = bytes.as_slice_mut().map_err(|_| not_contiguous())?;
        pieces.push(Target { bytes, offset });
    }
    let seen = py.detach(|| snapshot::scatter(arena, pieces, threads));
    Ok(findings(seen)?
        .into_iter()
        .map(|(checksum, _)| checksum)
        .collect())
}

/// Look at parts of the arena: what `snapshot_gather` returns, without a copy.
#[pyfunction]
#[allow(
    clippy::needless_pass_by_value,
    reason = "sequences of Python objects are converted"
)]
pub(crate) fn snapshot_inspect(
    arena: &Bytes<'_>,
    offsets: Vec<usize>,
    lengths: Vec<usize>,
    lanes: Vec<String>,
    threads: usize,
) -> PyResult<Findings> {
    let py = arena.py();
    same_length("offsets", offsets.len(), "lengths", lengths.len())?;
    same_length("lanes", lanes.len(), "lengths", lengths.len())?;
    let arena = readable(arena)?;
    let arena = arena.as_slice().map_err(|_| not_contiguous())?;
    let mut spans = Vec::with_capacity(lengths.len());
    for ((offset, length), name) in offsets.into_iter().zip(lengths).zip(&lanes) {
        spans.push(Span {
            offset,
            length,
            lane: lane(name)?,
        });
    }
    let seen = py.detach(|| snapshot::inspect(arena, &spans, threads));
    findings(seen)
}

fn findings(seen: Result<Vec<Seen>, Error>) -> PyResult<Findings> {
    let seen = seen.map_err(|error| invalid(error.to_string()))?;
    Ok(seen
        .into_iter()
        .map(|seen| (seen.checksum, seen.nonfinite))
        .collect())
}

fn readable<'py>(array: &Bytes<'py>) -> PyResult<PyReadonlyArray1<'py, u8>> {
    array
        .try_readonly()
        .map_err(|_| invalid("an array is being written to: pass each piece once".to_owned()))
}

fn writable<'py>(array: &Bytes<'py>) -> PyResult<PyReadwriteArray1<'py, u8>> {
    array.try_readwrite().map_err(|_| {
        invalid("an array is read-only or in use: pass writable arrays without overlap".to_owned())
    })
}

fn same_length(one: &str, ones: usize, other: &str, others: usize) -> PyResult<()> {
    if ones == others {
        return Ok(());
    }
    Err(invalid(format!(
        "`{one}` has {ones} items, but `{other}` has {others}: pass one for each piece"
    )))
}

fn lane(name: &str) -> PyResult<Lane> {
    Lane::from_name(name).ok_or_else(|| {
        invalid(format!(
            "`lanes` holds `{name}`: use `opaque` or the name of a floating type of torch"
        ))
    })
}

fn not_contiguous() -> PyErr {
    invalid("an array is not contiguous: pass views of whole ranges of bytes".to_owned())
}

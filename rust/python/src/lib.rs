//! The Python bindings of `flyball_core`: conversions and nothing else.

mod arrays;
mod dlpack;
mod error;
mod meters;
mod multi_label;
mod norm;
mod ranking;
mod resample;
mod scan;
mod scan_arrow;
mod scan_pack;
mod scan_report;
mod snapshot;
mod sums;
mod two;
mod vitals;

/// The compiled half of flyball.
#[pyo3::pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::meters::Classification;
    #[pymodule_export]
    use crate::multi_label::MultiLabel;
    #[pymodule_export]
    use crate::norm::Norm;
    #[pymodule_export]
    use crate::ranking::Ranking;
    #[pymodule_export]
    use crate::resample::{resample_means, resample_selective};
    #[pymodule_export]
    use crate::scan::{Scanner, scan_words};
    #[pymodule_export]
    use crate::scan_pack::Pack;
    #[pymodule_export]
    use crate::scan_report::Report;
    #[pymodule_export]
    use crate::snapshot::{snapshot_gather, snapshot_inspect, snapshot_scatter};
    #[pymodule_export]
    use crate::sums::{ExactSum, Text};
    #[pymodule_export]
    use crate::vitals::Detector;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("FINDINGS", flyball_core::scan::FINDINGS)?;
        module.add("UNICODE_VERSION", flyball_core::scan::UNICODE_VERSION)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

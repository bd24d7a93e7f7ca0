//! Rows as a CSV file.

use std::path::Path;

use super::error::Error;
use super::fsx;

/// Writes rows as CSV, atomically.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write_csv(path: &Path, rows: &[Vec<String>]) -> Result<(), Error> {
    let fail = |error| Error::Csv {
        path: path.to_path_buf(),
        error,
    };
    let mut out = csv::Writer::from_writer(Vec::new());
    for row in rows {
        out.write_record(row).map_err(fail)?;
    }
    let bytes = out.into_inner().map_err(|e| fail(e.into_error().into()))?;
    Ok(fsx::write(path, &bytes)?)
}

//! Whole files or none.

use crate::error::Origin;
use crate::{Error, Result};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file that appears under its name only when it is complete.
///
/// Bytes go to a temporary file in the same directory; [`AtomicFile::commit`] brings them to the disk and renames the
/// temporary over the name, in one step for everybody who looks. Dropped without commit, it leaves nothing behind.
#[derive(Debug)]
pub struct AtomicFile {
    origin: Origin,
    temporary: PathBuf,
    file: Option<File>,
}

impl AtomicFile {
    /// Creates the temporary file beside `path`.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory does not exist or cannot be written.
    pub fn create(path: impl AsRef<Path>) -> Result<AtomicFile> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let origin = Origin::new(path);
        let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "not the name of a file");
        let name = origin.path().file_name().ok_or_else(|| origin.io("create", invalid()))?;
        #[cfg(not(target_family = "wasm"))]
        let process = std::process::id();
        #[cfg(target_family = "wasm")]
        let process = 0;
        loop {
            let mut temporary = std::ffi::OsString::from(".");
            temporary.push(name);
            temporary.push(format!(".{process}-{}.tmp", COUNT.fetch_add(1, Ordering::Relaxed)));
            let temporary = origin.path().with_file_name(temporary);
            match File::options().write(true).create_new(true).open(&temporary) {
                Ok(file) => return Ok(AtomicFile { origin, temporary, file: Some(file) }),
                // Left over from a process of the same number that was killed.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(origin.io("create", e)),
            }
        }
    }

    /// The name the file will have.
    pub fn path(&self) -> &Path {
        self.origin.path()
    }

    /// Writes everything to the disk and gives the file its name, replacing an older file of that name.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk is full or the rename is refused; the older file is then untouched.
    pub fn commit(mut self) -> Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let result = file.sync_all().map_err(|e| self.origin.io("write", e)).and_then(|()| {
            drop(file);
            std::fs::rename(&self.temporary, self.origin.path()).map_err(|e| self.origin.io("replace", e))
        });
        if result.is_err() {
            let _ = std::fs::remove_file(&self.temporary);
            return result;
        }
        self.sync_directory()
    }

    /// The rename itself is on the disk only when the directory is.
    #[cfg(unix)]
    fn sync_directory(&self) -> Result<()> {
        let parent = self.origin.path().parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Some file systems refuse to open or sync a directory; the file is complete and in place all the same.
        if let Ok(directory) = File::open(parent) {
            let _ = directory.sync_all();
        }
        Ok(())
    }

    #[cfg(not(unix))]
    fn sync_directory(&self) -> Result<()> {
        Ok(())
    }

    pub(crate) fn error(&self, source: std::io::Error) -> Error {
        self.origin.io("write", source)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match &mut self.file {
            Some(file) => file.write(buf),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Writes a whole small file as [`AtomicFile`] does.
///
/// # Errors
/// [`Error::Io`] as for creating and committing.
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(|e| file.error(e))?;
    file.commit()
}

//! Folders that outlive a power cut.
//!
//! In: a path. Out: the folder, private to its owner, its name durable and those of all its parents that were made with it. A crash in
//! between leaves some of them, which the next call takes as they are.

use std::{
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

/// Makes `path` and whatever is missing above it, mode 0700, and makes each new name durable. One that is there is left as it is.
///
/// # Errors
/// What the kernel says.
pub fn create(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync(parent_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.parent().is_some() => {
            create(parent_of(path))?;
            create(path)
        }
        Err(_) if path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the names in a folder durable.
///
/// # Errors
/// What the kernel says.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Where the name of `path` stands.
pub fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn what_is_missing_is_made_private_and_what_is_there_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a/b/c");
        create(&path).expect("made");
        for made in ["a", "a/b", "a/b/c"] {
            let mode = fs::metadata(dir.path().join(made)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{made}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).expect("ours");
        create(&path).expect("there already");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o750);
        fs::write(dir.path().join("file"), "").expect("written");
        create(&dir.path().join("file")).expect_err("no folder");
        create(&dir.path().join("file/below")).expect_err("no folder above");
        assert_eq!(parent_of(Path::new("plain")), Path::new("."));
    }
}

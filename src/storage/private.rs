//! Files of the state directory. They contain pass keys of private trackers, so only the daemon's user may open them,
//! independent of the umask and of the process that created them.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// The mode of a file.
pub(super) const FILE_MODE: u32 = 0o600;
/// The mode of a directory below the state directory.
pub(super) const DIR_MODE: u32 = 0o700;
/// The mode of the state directory itself if the daemon creates it: `downloads` and `watch` may lie below it and be
/// shared with a group.
const STATE_DIR_MODE: u32 = 0o755;

/// Returns options that create a private file, follow no symbolic link and do not wait at a pipe.
pub(super) fn options() -> OpenOptions {
    let mut options = File::options();
    options.mode(FILE_MODE).custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed());
    options
}

/// Opens the file at `path`, which must be a regular file, and makes it private.
pub(super) fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
    }
    if metadata.permissions().mode() & 0o7777 != FILE_MODE {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

/// Creates the state directory and missing directories above it.
pub(super) fn make_state_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(STATE_DIR_MODE).create(dir)?;
    // With a sticky bit other users cannot rename or remove files that are not theirs.
    if std::fs::metadata(dir)?.permissions().mode() & 0o1002 == 0o002 {
        log::warn!("{} is writable by every user, so any user can replace its files; change its mode", dir.display());
    }
    Ok(())
}

/// Creates a directory below the state directory if it is missing, and makes it private.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(DIR_MODE).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = std::fs::symlink_metadata(dir)?;
    if !metadata.is_dir() {
        return Err(Errno::NOTDIR.into());
    }
    if metadata.permissions().mode() & 0o7777 != DIR_MODE {
        std::fs::set_permissions(dir, Permissions::from_mode(DIR_MODE))?;
    }
    Ok(())
}

/// Returns an error that describes the failure at `path` and how to resolve it.
pub(super) fn told(path: &Path, doing: &str, error: &io::Error) -> io::Error {
    let advice = match Errno::from_io_error(error) {
        Some(Errno::ROFS) => "; make the file system writable, or choose another directory with `[paths] state`",
        Some(Errno::NOSPC | Errno::DQUOT) => "; free some space on its file system",
        Some(Errno::ACCESS | Errno::PERM) => "; give the daemon's user access to it",
        Some(Errno::LOOP) => "; it is a symbolic link, which is not followed: replace it with the file itself",
        Some(Errno::ISDIR | Errno::NOTDIR) => "; move the existing file or directory away",
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot {doing} {}: {error}{advice}", path.display()))
}

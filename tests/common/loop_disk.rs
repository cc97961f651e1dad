//! A file system in an image file, mounted by a loop device. It can be shut down as by a power cut: data that was not
//! written yet is lost, and later writes fail.
//!
//! This needs root and a mount namespace of the test's own (`in_mounts_of_root`). The kernel detaches the loop device
//! when the file system is unmounted, so no device is left when a test or its process is killed.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::wait;

/// `FS_IOC_SHUTDOWN`: `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::c_ulong = 0x8004_587d;

/// The part of its changes in memory that the file system still writes when its power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// All changes: a clean end at a bad moment.
    Everything = 0,
    /// The log of the file system, and only the data that must precede it.
    Log = 1,
    Nothing = 2,
}

/// A mounted file system.
#[derive(Debug)]
pub struct LoopDisk {
    image: PathBuf,
    dir: PathBuf,
}

impl LoopDisk {
    /// Makes a file system of `kind` (`ext4` or `xfs`) in the file `image` and mounts it at `dir`. Returns `None` and
    /// prints a line if this machine cannot make or mount it.
    pub fn make(kind: &str, image: &Path, mib: u64, dir: &Path) -> Option<Self> {
        std::fs::File::create(image).unwrap().set_len(mib << 20).unwrap();
        let force = if kind == "xfs" { "-f" } else { "-F" };
        let made = Command::new(format!("mkfs.{kind}")).args(["-q", force]).arg(image).stderr(Stdio::null()).status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("skipped: mkfs.{kind} is not installed");
            return None;
        }
        std::fs::create_dir_all(dir).unwrap();
        let disk = Self { image: image.to_owned(), dir: dir.to_owned() };
        if !disk.try_mount() {
            eprintln!("skipped: cannot mount a loop device as {kind}");
            return None;
        }
        Some(disk)
    }

    fn try_mount(&self) -> bool {
        let mut command = Command::new("mount");
        command.args(["-o", "loop"]).arg(&self.image).arg(&self.dir).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Mounts the file system again: it recovers from its log.
    pub fn mount(&self) {
        assert!(self.try_mount(), "{} cannot be mounted again", self.image.display());
    }

    /// Unmounts the file system once it is not in use.
    pub fn unmount(&self) {
        let unmount = || Command::new("umount").arg(&self.dir).stderr(Stdio::null()).status();
        wait("the file system is unmounted", 10, || unmount().is_ok_and(|status| status.success()));
    }

    /// Writes all changes that the file system has in memory.
    pub fn sync(&self) {
        rustix::fs::syncfs(std::fs::File::open(&self.dir).unwrap()).unwrap();
    }

    /// Returns the number of times that the device was flushed: once or twice for each sync of a file.
    pub fn flushes(&self) -> u64 {
        let dev = rustix::fs::stat(&self.dir).unwrap().st_dev;
        let path = format!("/sys/dev/block/{}:{}/stat", rustix::fs::major(dev), rustix::fs::minor(dev));
        let stat = std::fs::read_to_string(path).unwrap();
        stat.split_whitespace().nth(15).map_or(0, |count| count.parse().unwrap())
    }

    /// Cuts the power of the file system: every later access fails.
    pub fn shut_down(&self, flushed: Flushed) {
        let dir = std::fs::File::open(&self.dir).unwrap();
        let flags = flushed as u32;
        // SAFETY: `FS_IOC_SHUTDOWN` reads 32 bits at the given address, which are those of `flags`, and keeps neither;
        // the descriptor is that of `dir`, which is open until the call returns.
        #[allow(unsafe_code, reason = "no crate has this call")]
        let result = unsafe { libc::ioctl(dir.as_raw_fd(), SHUTDOWN, &raw const flags) };
        assert_eq!(result, 0, "shutdown: {}", std::io::Error::last_os_error());
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).stderr(Stdio::null()).status();
    }
}

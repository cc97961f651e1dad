//! A file system in an image file, mounted by a loop device. It can be shut down as a power cut does it: what was not yet written is
//! lost, and nothing can be written any more.
//!
//! It needs root and a mount namespace of the test's own (`in_mounts_of_root`). The loop device is one that the kernel detaches by
//! itself when the file system is unmounted, so none is left behind when a test or its process is killed.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::wait;

/// `FS_IOC_SHUTDOWN`: `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::c_ulong = 0x8004_587d;

/// What the file system still writes, of the changes that it has in memory, when its power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// All of it: a clean end at a bad moment.
    Everything = 0,
    /// Its log, and no data that the log does not wait for.
    Log = 1,
    Nothing = 2,
}

/// A file system of one kind.
#[derive(Debug)]
pub struct LoopDisk {
    image: PathBuf,
    dir: PathBuf,
}

impl LoopDisk {
    /// Makes a file system of `kind` (`ext4` or `xfs`) in the file `image` and mounts it at `dir`. `None`, and a line is printed, if
    /// this machine has no such thing.
    pub fn make(kind: &str, image: &Path, mib: u64, dir: &Path) -> Option<Self> {
        std::fs::File::create(image).unwrap().set_len(mib << 20).unwrap();
        let force = if kind == "xfs" { "-f" } else { "-F" };
        let made = Command::new(format!("mkfs.{kind}")).args(["-q", force]).arg(image).stderr(Stdio::null()).status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("left out: mkfs.{kind} is not installed");
            return None;
        }
        std::fs::create_dir_all(dir).unwrap();
        let disk = Self { image: image.to_owned(), dir: dir.to_owned() };
        if !disk.try_mount() {
            eprintln!("left out: no loop device may be mounted as {kind}");
            return None;
        }
        Some(disk)
    }

    fn try_mount(&self) -> bool {
        let mut command = Command::new("mount");
        command.args(["-o", "loop"]).arg(&self.image).arg(&self.dir).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Mounts it again: the file system recovers from its log.
    pub fn mount(&self) {
        assert!(self.try_mount(), "{} cannot be mounted again", self.image.display());
    }

    /// Unmounts it, once nobody uses it any more.
    pub fn unmount(&self) {
        let unmount = || Command::new("umount").arg(&self.dir).stderr(Stdio::null()).status();
        wait("the file system is unmounted", 10, || unmount().is_ok_and(|status| status.success()));
    }

    /// Writes all that it has in memory.
    pub fn sync(&self) {
        rustix::fs::syncfs(std::fs::File::open(&self.dir).unwrap()).unwrap();
    }

    /// How many times the device was flushed: once or twice for each sync of a file.
    pub fn flushes(&self) -> u64 {
        let dev = rustix::fs::stat(&self.dir).unwrap().st_dev;
        let path = format!("/sys/dev/block/{}:{}/stat", rustix::fs::major(dev), rustix::fs::minor(dev));
        let stat = std::fs::read_to_string(path).unwrap();
        stat.split_whitespace().nth(15).map_or(0, |count| count.parse().unwrap())
    }

    /// Cuts its power: from now on every access fails.
    pub fn shut_down(&self, flushed: Flushed) {
        let dir = std::fs::File::open(&self.dir).unwrap();
        let flags = flushed as u32;
        // SAFETY: `FS_IOC_SHUTDOWN` reads 32 bits at the address that it is given, which are those of `flags`, and keeps neither; the
        // descriptor is that of `dir`, which is open until the call returns.
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

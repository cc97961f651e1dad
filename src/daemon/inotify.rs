//! What the kernel says about watched directories, read in one way for all who watch some.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::inotify::{ReadFlags, Reader};
use rustix::io::Errno;

/// Something that happened: the kernel's number of the directory, what, and to which name in it.
pub(super) type Happened = (i32, ReadFlags, Option<OsString>);

/// Everything that has happened: no more than the kernel keeps, which then says that it has lost count.
pub(super) fn read(inotify: impl AsFd) -> Vec<Happened> {
    let mut happened = Vec::new();
    let mut buf = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(inotify, &mut buf);
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                happened.push((event.wd(), event.events(), name));
            }
            Err(Errno::INTR) => {}
            Err(_) => return happened,
        }
    }
}

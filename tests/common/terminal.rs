//! A program at a terminal of its own: what it shows, keys pressed, the window resized.
#![allow(unreachable_pub, missing_debug_implementations, clippy::unwrap_used, reason = "for tests")]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::wait;

/// A terminal with a program at it.
pub struct Terminal {
    pub child: Child,
    master: std::fs::File,
    slave: OwnedFd,
    parser: vt100::Parser,
    /// Everything that the program has written.
    pub written: Vec<u8>,
}

impl Terminal {
    /// Starts `program` with these arguments at a terminal of this many columns and rows.
    pub fn start(program: &Path, args: &[&str], env: &[(&str, &str)], columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = open(&*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        tcsetwinsize(&master, size(columns, rows)).unwrap();
        fcntl_setfl(&master, OFlags::NONBLOCK).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        // It makes the terminal that of a session of its own, and becomes the program.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program).args(args).env("TERM", "xterm-256color").env_remove("NO_COLOR");
        let child = command.envs(env.iter().copied()).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let parser = vt100::Parser::new(rows, columns, 0);
        Self { child, master: master.into(), slave, parser, written: Vec::new() }
    }

    /// The screen, a line a row.
    pub fn screen(&mut self) -> String {
        let mut buf = [0; 65536];
        while let Ok(len @ 1..) = self.master.read(&mut buf) {
            self.parser.process(&buf[..len]);
            self.written.extend_from_slice(&buf[..len]);
        }
        self.parser.screen().contents()
    }

    /// The screen with its colours.
    pub fn cells(&mut self) -> &vt100::Screen {
        self.screen();
        self.parser.screen()
    }

    /// Waits until the screen has `text`.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let mut last = String::new();
        let mut looks = 0;
        wait(&format!("`{text}` on the screen"), 20, || {
            last = self.screen();
            looks += 1;
            if looks == 900 {
                eprintln!("{last}");
            }
            last.contains(text)
        });
    }

    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.screen();
        tcsetwinsize(&self.master, size(columns, rows)).unwrap();
        self.parser.screen_mut().set_size(rows, columns);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    /// Waits until it has stopped.
    pub fn wait_stopped(&mut self) {
        let pid = self.pid();
        let stopped = || {
            let status = waitpid(Some(pid), WaitOptions::UNTRACED | WaitOptions::NOHANG).unwrap();
            status.is_some_and(|(_, status)| status.stopped())
        };
        wait("it stops", 10, stopped);
    }

    /// Waits until it has ended; its exit status.
    pub fn wait_ended(&mut self) -> Option<i32> {
        let mut code = None;
        wait("it ends", 10, || {
            self.screen();
            self.child.try_wait().unwrap().is_some_and(|status| {
                code = status.code();
                true
            })
        });
        code
    }

    /// Nobody has the terminal: lines are edited and echoed, the cursor is there, and what was on the screen before is.
    pub fn is_given_back(&mut self) -> bool {
        self.screen();
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        let screen = self.parser.screen();
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
            && !screen.alternate_screen()
            && !screen.hide_cursor()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

const fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

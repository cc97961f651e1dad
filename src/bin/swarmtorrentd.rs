//! The program `swarmtorrentd`: see [`swarmtorrent::daemon`].

use std::process::ExitCode;

fn main() -> ExitCode {
    swarmtorrent::daemon::main::main()
}

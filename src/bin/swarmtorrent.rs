//! The program `swarmtorrent`: see [`swarmtorrent::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    swarmtorrent::cli::main::main()
}

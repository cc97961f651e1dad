//! Where the control socket is, for those who were not told: the daemon that makes it and the tool that looks for it.

use std::ffi::OsString;
use std::path::PathBuf;

/// The socket of a service install.
pub const SYSTEM_SOCKET: &str = "/run/swarmtorrentd/control.sock";

/// The socket of a user's own daemon: below `$XDG_RUNTIME_DIR`, or in its state directory where there is none. `env` gives
/// environment variables.
pub fn user_socket(env: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    match directory(&env, "XDG_RUNTIME_DIR") {
        Some(run) => run.join("swarmtorrentd/control.sock"),
        None => user_state(env).join("control.sock"),
    }
}

/// The state directory of a user's own daemon.
pub fn user_state(env: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    directory(&env, "XDG_STATE_HOME").unwrap_or_else(|| home(&env).join(".local/state")).join("swarmtorrentd")
}

/// The home directory; `/` where nothing says.
pub fn home(env: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    directory(env, "HOME").unwrap_or_else(|| PathBuf::from("/"))
}

/// The absolute path that a variable holds; a relative one is ignored, as the XDG specification wants.
pub fn directory(env: impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    env(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_socket_follows_the_environment() {
        let env = |name: &str| match name {
            "XDG_RUNTIME_DIR" => Some("/run/user/1000".into()),
            "HOME" => Some("/home/u".into()),
            "XDG_STATE_HOME" => Some("relative".into()),
            _ => None,
        };
        assert_eq!(user_socket(env), PathBuf::from("/run/user/1000/swarmtorrentd/control.sock"));
        let bare = |name: &str| env(name).filter(|_| name == "HOME");
        assert_eq!(user_socket(bare), PathBuf::from("/home/u/.local/state/swarmtorrentd/control.sock"));
    }
}

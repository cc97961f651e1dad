//! Every key, both ways; and what is said against a wrong one.

use super::*;

fn parse(text: &str) -> Result<Settings, Error> {
    Settings::parse(text, Path::new("/etc/x.toml"))
}

fn error(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

#[test]
fn the_shipped_file_says_every_key_with_its_default() {
    let shipped = include_str!("../../../conf/swarmtorrentd.toml");
    assert_eq!(parse(shipped), Ok(Settings::default()));
    let has = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
    assert_eq!(parse(""), Ok(Settings::default()), "every key is optional");
    let (shipped, printed) = (has(shipped), has(&Settings::default().print()));
    for (section, keys) in &printed {
        let Some(keys) = keys.as_table() else { continue };
        for (key, _) in keys {
            assert!(
                shipped[section].get(key).is_some() || key == "block",
                "conf/swarmtorrentd.toml lacks {section}.{key}"
            );
        }
    }
}

#[test]
fn every_key_is_read_and_printed_back() {
    let text = r#"
        [paths]
        state = "/s"
        downloads = "/d"
        [[watch]]
        path = "/w"
        downloads = "/w/d"
        label = "l"
        paused = true
        recursive = true
        [[share]]
        path = "/h"
        format = "torrent"
        trackers = ["udp://t:1"]
        [control]
        socket = "/c"
        mode = "0600"
        group = "g"
        [peers]
        listen = ["127.0.0.1:0"]
        max_connections = 1
        max_per_torrent = 2
        max_half_open = 3
        upload_slots = 4
        encryption = "off"
        utp = false
        pex = false
        lsd = false
        catalog = false
        interface = "tun0"
        proxy = "socks5://p:1"
        anonymous = true
        block = ["10.0.0.0/8"]
        [limits]
        down = "1K"
        up = "2M"
        memory = "3G"
        active_downloads = 0
        active_seeds = 1
        min_free_space = "5"
        ratio = 1.5
        seed_time = "7d"
        idle_time = "12h"
        [limits.alternative]
        down = "3M"
        up = "4K"
        from = "08:05"
        to = "18:00"
        days = ["mon", "sun"]
        [[rule]]
        label = "a*"
        tracker = "example.org"
        private = true
        size_min = "1M"
        size_max = "1G"
        added_min = "1d"
        added_max = "2d"
        finished_min = "1h"
        finished_max = "2h"
        ratio = 2.5
        seed_time = "3d"
        then = "throttle 10K"
        down = "1M"
        up = "2M"
        queue = "top"
        [[rule]]
        idle_time = "3d"
        then = "remove-data"
        [storage]
        allocate = "sparse"
        backend = "mmap"
        verify_on_add = false
        [trackers]
        announce_to_all = true
        timeout = "1m"
        proxy = "socks5://p:1"
        [dht]
        enabled = false
        listen = ["[::1]:1"]
        bootstrap = []
        read_only = true
        [nat]
        upnp = false
        natpmp = false
        [http]
        listen = []
        username = "u"
        password_file = "/p"
        allow_hosts = ["h"]
        web_seed = true
        [tracker]
        udp = ["0.0.0.0:1"]
        http = ["0.0.0.0:2"]
        interval = "5m"
        open = false
        allow_file = "/a"
        keys_file = "/k"
        proxies = ["10.0.0.0/8"]
        max_connections = 1
        max_swarms = 1
        max_peers = 1
        store = "redis://r"
        [log]
        level = "trace"
    "#;
    let settings = parse(text).unwrap();
    assert_eq!(parse(&settings.print()), Ok(settings.clone()), "{}", settings.print());
    let (all, default) =
        (|settings: &Settings| toml::from_str::<toml::Table>(&settings.print()).unwrap(), Settings::default());
    for (section, keys) in &all(&default) {
        let Some(keys) = keys.as_table() else { continue };
        for (key, value) in keys {
            assert_ne!(
                Some(value),
                all(&settings)[section].get(key),
                "{section}.{key} is not tried with another value"
            );
        }
    }
    let config = settings.engine();
    assert_eq!((config.down_rate_bytes, config.up_rate_bytes), (1024, 2 << 20));
    assert_eq!((config.upload_slots, config.encryption), (UploadSlots::Fixed(4), Mse::Off));
    assert!(!config.allocate_full && !config.dht && !config.verify_on_add && config.announce_to_all);
    assert_eq!(config.dht_listen, ["[::1]:1".parse().unwrap()]);
    assert_eq!(settings.control.mode, 0o600);
}

#[test]
fn defaults_of_the_engine_are_those_of_the_file() {
    let config = Settings::default().engine();
    let engine = Config { downloads: config.downloads.clone(), listen: config.listen.clone(), ..Config::default() };
    assert_eq!(config, engine);
}

#[test]
fn unknown_keys_are_named_with_their_line_and_the_nearest_known() {
    assert_eq!(error("[peers]\nlisetn = []"), "/etc/x.toml:2: unknown key `lisetn`, did you mean `listen`?");
    assert_eq!(error("\n[perrs]\n"), "/etc/x.toml:2: unknown key `perrs`, did you mean `peers`?");
    assert!(error("[log]\ncolour = 1").starts_with("/etc/x.toml:2: unknown key `colour`, there are level"));
    assert_eq!(
        error("[[watch]]\npath = \"/a\"\nlabl = \"\""),
        "/etc/x.toml:3: unknown key `labl`, did you mean `label`?"
    );
}

#[test]
fn wrong_values_are_named_with_their_line_their_key_and_what_is_allowed() {
    for (text, key, allowed) in [
        ("[limits]\n\ndown = \"fast\"", ":3: `limits.down`", "\"512K\""),
        ("[limits]\ndown = 5", ":2: `limits.down`", "\"512K\""),
        ("[limits]\nratio = -1.0", ":2: `limits.ratio`", "from 0"),
        ("[limits]\nratio = inf", ":2: `limits.ratio`", "from 0"),
        ("[limits]\nseed_time = \"1w\"", ":2: `limits.seed_time`", "\"7d\""),
        ("[limits]\nactive_seeds = -1", ":2: `limits.active_seeds`", "from 0 to"),
        ("[peers]\nmax_connections = 0", ":2: `peers.max_connections`", "from 1 to"),
        ("[peers]\nlisten = [\n\"6881\"]", "`peers.listen`", "\"[::]:6881\""),
        ("[peers]\nupload_slots = 0", ":2: `peers.upload_slots`", "\"auto\" or"),
        ("[peers]\nupload_slots = \"many\"", ":2: `peers.upload_slots`", "\"auto\" or"),
        ("[peers]\nencryption = \"maybe\"", ":2: `peers.encryption`", "`require`"),
        ("[peers]\nutp = \"yes\"", ":2: `peers.utp`", "boolean"),
        ("[control]\nmode = \"0999\"", ":2: `control.mode`", "octal"),
        ("[control]\nmode = \"+660\"", ":2: `control.mode`", "octal"),
        ("[control]\nmode = 660", ":2: `control.mode`", "octal"),
        ("[paths]\nstate = \"here\"", ":2: `paths.state`", "absolute"),
        ("[trackers]\ntimeout = \"0s\"", ":2: `trackers.timeout`", "\"1s\""),
        ("[storage]\nbackend = \"uring\"", ":2: `storage.backend`", "`mmap`"),
        ("[log]\nlevel = \"loud\"", ":2: `log.level`", "trace"),
    ] {
        let said = error(text);
        assert!(said.starts_with("/etc/x.toml:") && said.contains(key) && said.contains(allowed), "{text}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn broken_files_are_refused_in_one_line() {
    for text in [
        "[",
        "x",
        "[peers]\n[peers]",
        "a = \"\n\"",
        "[[watch]]\nlabel = \"\"",
        "\0",
        "[[watch]]\npath='/a'\n[[watch]]\npath='/a'",
    ] {
        let said = error(text);
        assert!(said.starts_with("/etc/x.toml") && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn a_user_has_everything_at_home() {
    let env = |name: &str| match name {
        "HOME" => Some("/home/u".into()),
        "XDG_RUNTIME_DIR" => Some("/run/user/1".into()),
        _ => None,
    };
    let settings = Settings::of_user(env);
    assert_eq!(settings.paths.state, Path::new("/home/u/.local/state/swarmtorrentd"));
    assert_eq!(settings.paths.downloads, Path::new("/home/u/Downloads"));
    assert_eq!(settings.watch, [Watch::at("/home/u/Torrents")]);
    assert_eq!(settings.control.socket, Path::new("/run/user/1/swarmtorrentd/control.sock"));
    assert_eq!(parse(&settings.print()), Ok(settings));
}

#[test]
fn only_what_is_asked_for_is_said_to_be_missing() {
    assert!(Settings::default().unsupported().is_empty());
    let settings = parse("[http]\nlisten = []\nweb_seed = true").unwrap();
    assert_eq!(settings.unsupported(), ["http.web_seed"]);
}

#[test]
fn there_is_one_proxy_and_nothing_beside_it() {
    let both = "[peers]\nproxy = \"socks5://10.0.0.1\"\n[trackers]\nproxy = \"socks5://10.0.0.2\"";
    assert!(parse(both).unwrap_err().to_string().contains("set one of them"));
    let bad = parse("[trackers]\nproxy = \"socks4://me:secret@p\"").unwrap_err().to_string();
    assert!(bad.contains("trackers.proxy") && bad.contains("socks5://") && !bad.contains("secret"), "{bad}");
    let settings = parse("[trackers]\nproxy = \"socks5://me:secret@Box:9\"\n[tracker]\nudp = [\"0.0.0.0:1\"]").unwrap();
    assert!(settings.conflict().is_some_and(|what| what.contains("goes around the proxy")));
    let (known, unknown) = (settings.proxy_among(&[("box".into(), [10, 0, 0, 7].into())]), settings.proxy_among(&[]));
    let proxy = known.unwrap().unwrap();
    assert_eq!(proxy.addr, "10.0.0.7:9".parse().unwrap());
    let config = settings.engine().through(proxy);
    assert!(config.listen.is_empty() && config.name_servers.is_empty() && !config.tracker.is_on() && !config.lsd);
    assert!(!format!("{config:?}").contains("secret"));
    assert!(unknown.unwrap_err().contains("/etc/hosts"));
    assert_eq!((Settings::default().conflict(), Settings::default().proxy()), (None, None));
}

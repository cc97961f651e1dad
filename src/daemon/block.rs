//! The blocklist of `[peers] block`: nets as they stand there, and files of many.

use std::path::Path;

use crate::base::blocklist::{Blocklist, Range};
use crate::base::net::Net;
use crate::codec::blocklist::parse;
use crate::daemon::load::read_regular;

/// Bytes of a file; a longer one is refused.
const FILE_MAX: u64 = 64 << 20;
/// Ranges in all; with more it is refused.
const RANGES_MAX: usize = 4_000_000;

/// Reads everything that is named: an address, a net, or the absolute path of a file.
///
/// # Errors
/// One sentence for the user: the first entry that is neither, or cannot be read, or says nothing.
pub fn load(entries: &[String]) -> Result<Blocklist, String> {
    let mut ranges: Vec<Range> = Vec::new();
    for entry in entries {
        if let Some(net) = Net::parse(entry) {
            ranges.push(net.range());
            continue;
        }
        if !Path::new(entry).is_absolute() {
            return Err(format!(
                "block: `{entry}` is neither an address, a net such as 10.0.0.0/8, nor an absolute path"
            ));
        }
        let bytes = read_regular(Path::new(entry), FILE_MAX).map_err(|why| format!("block: {why}"))?;
        let parsed = parse(&bytes);
        if parsed.ranges.is_empty() && parsed.bad > 0 {
            return Err(format!("block: {entry}: not one line of it is an address or a range of some"));
        }
        if let Some(line) = parsed.first_bad {
            log::warn!("{entry}: {} lines are not understood and left out, the first is line {line}", parsed.bad);
        }
        ranges.extend(parsed.ranges);
        if ranges.len() > RANGES_MAX {
            return Err(format!("block: more than {RANGES_MAX} ranges; leave some files out"));
        }
    }
    Ok(Blocklist::new(ranges))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nets_and_files_are_one_list() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("list.p2p");
        std::fs::write(&file, "Name:1.2.3.4-1.2.3.7\nnonsense\n").unwrap();
        let file = file.to_str().unwrap().to_owned();
        let list = load(&["10.0.0.0/8".to_owned(), file.clone()]).unwrap();
        assert!(list.len() == 2 && list.blocks("1.2.3.5".parse().unwrap()));
        assert!(load(&[]).unwrap().is_empty());
        assert!(load(&["list.p2p".to_owned()]).unwrap_err().contains("absolute"));
        std::fs::write(&file, "<html>\n").unwrap();
        assert!(load(&[file]).unwrap_err().contains("not one line"));
        assert!(load(&["/none".to_owned()]).unwrap_err().contains("/none"));
    }
}

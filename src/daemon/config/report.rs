//! What is wrong with a config file, said so that it can be mended: file, line, key, what is allowed.

use std::path::Path;

/// The sentence for an error of the TOML reader.
pub(super) fn sentence(text: &str, file: &Path, error: &toml::de::Error) -> String {
    let message = error.message().lines().collect::<Vec<_>>().join("; ");
    let Some(span) = error.span() else {
        return format!("{}: {message}", file.display());
    };
    let at = span.start.min(text.len());
    let before = text.as_bytes()[..at].iter();
    let line = before.filter(|byte| **byte == b'\n').count() + 1;
    let place = format!("{}:{line}", file.display());
    if let Some(("", rest)) = message.split_once("unknown field `")
        && let Some((key, expected)) = rest.split_once('`')
    {
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let hint = match nearest(key, &known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("there are {}", known.join(", ")),
        };
        return format!("{place}: unknown key `{key}`, {hint}");
    }
    match key_at(text, line) {
        Some(key) => format!("{place}: `{key}`: {message}"),
        None => format!("{place}: {message}"),
    }
}

/// The key whose value stands in `line` (from 1) or ends there, with its section.
fn key_at(text: &str, line: usize) -> Option<String> {
    let before: Vec<&str> = text.lines().take(line).collect();
    let is_key = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let mut key = None;
    for line in before.iter().rev() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[').filter(|_| !line.contains('"')) {
            let section = section.split(']').next()?.trim_start_matches('[').trim();
            return key.map(|key| format!("{section}.{key}"));
        }
        if key.is_none() {
            key = line.split_once('=').map(|(word, _)| word.trim()).filter(|word| is_key(word));
        }
    }
    key.map(str::to_owned)
}

/// The known word that is fewest edits away, if those are few.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, best) = known.iter().map(|other| (distance(word, other), *other)).min()?;
    (distance <= word.len().div_ceil(3)).then_some(best)
}

/// Edits between two words: insert, delete, replace, or swap of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_near_and_another_word_is_not() {
        let known = ["listen", "utp", "pex", "upload_slots"];
        assert_eq!(nearest("lisetn", &known), Some("listen"));
        assert_eq!(nearest("upload_slot", &known), Some("upload_slots"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn the_key_of_a_line_is_found_with_its_section() {
        let text = "[a]\nx = 1\n[[b]]\ny = [\n  \"c=d\",\n]\n";
        assert_eq!(key_at(text, 2).as_deref(), Some("a.x"));
        assert_eq!(key_at(text, 5).as_deref(), Some("b.y"));
        assert_eq!(key_at("z = 1", 1).as_deref(), Some("z"));
        assert_eq!(key_at("[a]", 1), None);
    }
}

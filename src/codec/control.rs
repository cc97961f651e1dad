//! The lines of the control socket, protocol 1: requests split as a shell splits, and replies that cannot be mistaken.
//!
//! A payload line is text from us or from strangers. [`escape`] turns every control character and every mark that
//! reorders text into `\n`, `\r`, `\t` or the `\xNN` of its UTF-8 bytes, and a backslash into `\\`; [`push_payload`] also
//! writes a leading `OK` as `\x4fK` and a leading `ERR` as `\x45RR`, so only the closing line begins with those.
//! Which commands there are is not known here.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;

use nom::branch::alt;
use nom::bytes::complete::{is_not, tag, take_while, take_while1};
use nom::character::complete::{anychar, char};
use nom::combinator::{all_consuming, map, recognize, value};
use nom::multi::many0;
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

/// Bytes of a request line without its end. A longer one is answered with an error and skipped.
pub const LINE_MAX: usize = 64 * 1024;
/// Words of a request line. More are refused.
pub const WORDS_MAX: usize = 1024;

/// A word of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    /// What it says, without quotes and escapes.
    pub text: String,
    /// How long the key is, if the word has the form `key=value` with the key and the sign outside quotes.
    key_len: Option<usize>,
}

impl Word {
    /// The key and value of a `key=value` word: the key is lower-case letters and `-`. Quotes around the key or the sign
    /// make it an ordinary word, so a file may be called `"a=b"`.
    #[must_use]
    pub fn option(&self) -> Option<(&str, &str)> {
        let len = self.key_len?;
        Some((&self.text[..len], &self.text[len + 1..]))
    }
}

/// Why a request line has no words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineError {
    /// Not UTF-8.
    NotText,
    /// A control character other than a tab.
    ControlCharacter,
    /// A quote is opened and not closed, or the line ends in a lone backslash.
    Unfinished,
    /// More than [`WORDS_MAX`].
    TooManyWords,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotText => "the line is not UTF-8 text",
            Self::ControlCharacter => "the line holds a control character",
            Self::Unfinished => "a quote is not closed, or the line ends in a lone backslash",
            Self::TooManyWords => "the line has too many words",
        })
    }
}

/// Splits a request line (without its end) into words. None for a blank line or a comment.
///
/// # Errors
/// See [`LineError`].
pub fn parse_line(line: &[u8]) -> Result<Option<Vec<Word>>, LineError> {
    let text = std::str::from_utf8(line).map_err(|_| LineError::NotText)?;
    if text.starts_with('#') {
        return Ok(None);
    }
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(LineError::ControlCharacter);
    }
    let mut rest = text.trim_start_matches(is_blank);
    let mut words = Vec::new();
    while !rest.is_empty() {
        if words.len() == WORDS_MAX {
            return Err(LineError::TooManyWords);
        }
        let (after, word) = word(rest).map_err(|_| LineError::Unfinished)?;
        words.push(word);
        rest = after;
    }
    Ok(if words.is_empty() { None } else { Some(words) })
}

const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// One word and the blanks after it. Parts that touch are one word, as in a shell.
fn word(input: &str) -> IResult<&str, Word> {
    let (rest, parts) = many0(part).parse(input)?;
    // Only here can a quote be open: nothing but a blank or the end may follow.
    let (rest, _) = alt((take_while1(is_blank), all_consuming(tag("")))).parse(rest)?;
    let mut word = Word::default();
    let mut is_bare_so_far = true;
    for (text, is_bare) in parts {
        is_bare_so_far &= is_bare;
        if is_bare_so_far
            && word.key_len.is_none()
            && let Some(at) = text.find('=')
        {
            let key_len = word.text.len() + at;
            let key = [word.text.as_str(), &text[..at]].concat();
            let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
            // A sign that follows something else makes an ordinary word for good.
            is_bare_so_far = is_key;
            word.key_len = is_key.then_some(key_len);
        }
        word.text.push_str(&text);
    }
    Ok((rest, word))
}

/// A part of a word, and whether it was bare: neither quoted nor escaped.
fn part(input: &str) -> IResult<&str, (Cow<'_, str>, bool)> {
    let bare = map(is_not(" \t\"'\\"), |text: &str| (Cow::Borrowed(text), true));
    let escaped = map(preceded(char('\\'), recognize(anychar)), |text: &str| (Cow::Borrowed(text), false));
    let single = map(delimited(char('\''), take_while(|c| c != '\''), char('\'')), |text| (Cow::Borrowed(text), false));
    let double =
        map(delimited(char('"'), many0(double_quoted), char('"')), |parts| (Cow::Owned(parts.concat()), false));
    alt((bare, escaped, single, double)).parse(input)
}

/// Inside double quotes a backslash escapes only `"` and itself.
fn double_quoted(input: &str) -> IResult<&str, &str> {
    alt((is_not("\"\\"), value("\"", tag("\\\"")), value("\\", tag("\\\\")), tag("\\"))).parse(input)
}

/// Writes `word` so that [`parse_line`] reads it back: bare where that is enough, else in single quotes. The key of a
/// `key=value` word stays bare. Control characters cannot be written; see [`LineError::ControlCharacter`].
#[must_use]
pub fn quote(word: &str) -> String {
    let is_safe = |c: char| !is_blank(c) && !"\"'\\#".contains(c);
    if !word.is_empty() && word.chars().all(is_safe) {
        return word.to_owned();
    }
    let is_key = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    match word.split_once('=') {
        Some((key, value)) if is_key(key) => format!("{key}={}", quote_all(value)),
        _ => quote_all(word),
    }
}

fn quote_all(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Makes text from anywhere fit for a line; see the top of this file. Borrows where nothing had to change.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c == '\\' || needs_escape(c)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str(r"\\"),
            '\n' => escaped.push_str(r"\n"),
            '\r' => escaped.push_str(r"\r"),
            '\t' => escaped.push_str(r"\t"),
            c if needs_escape(c) => push_hex(&mut escaped, c),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Control characters of both sets, line and paragraph separators, and the marks that turn the direction of text.
fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn push_hex(text: &mut String, c: char) {
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        write!(text, "\\x{byte:02x}").expect("writing to a string cannot fail");
    }
}

/// Adds one payload line. Control characters in it become escapes; `\` stays, for what a caller put through [`escape`].
pub fn push_payload(out: &mut String, line: &str) {
    let mut rest = line;
    if let Some(first @ ('O' | 'E')) = line.chars().next()
        && (line.starts_with("OK") || line.starts_with("ERR"))
    {
        push_hex(out, first);
        rest = &line[1..];
    }
    for c in rest.chars() {
        match c {
            '\n' => out.push_str(r"\n"),
            c if needs_escape(c) => push_hex(out, c),
            c => out.push(c),
        }
    }
    out.push('\n');
}

/// Adds the closing line of a request that was carried out.
pub fn push_ok(out: &mut String, detail: &str) {
    out.push_str("OK");
    if !detail.is_empty() {
        out.push(' ');
        out.push_str(&escape(detail));
    }
    out.push('\n');
}

/// Adds the closing line of a request that was refused.
pub fn push_err(out: &mut String, code: &str, message: &str) {
    writeln!(out, "ERR {code} {}", escape(message)).expect("writing to a string cannot fail");
}

/// Adds the closing line in its JSON form: `detail` are the fields after `ok`, which always comes first.
pub fn push_json_ok(out: &mut String, detail: &[(&str, serde_json::Value)]) {
    push_json_closing(out, true, detail);
}

/// Adds the JSON closing line of a request that was refused.
pub fn push_json_err(out: &mut String, code: &str, message: &str) {
    push_json_closing(out, false, &[("code", code.into()), ("message", message.into())]);
}

fn push_json_closing(out: &mut String, is_ok: bool, fields: &[(&str, serde_json::Value)]) {
    write!(out, "{{\"ok\":{is_ok}").expect("writing to a string cannot fail");
    for (name, field) in fields {
        write!(out, ",\"{name}\":{}", json_text(field)).expect("writing to a string cannot fail");
    }
    out.push_str("}\n");
}

/// Adds one JSON line.
pub fn push_json(out: &mut String, object: &serde_json::Value) {
    writeln!(out, "{}", json_text(object)).expect("writing to a string cannot fail");
}

/// The JSON text of a value, in one line. What would do something to a terminal is escaped, in the way of JSON.
#[must_use]
pub fn json_text(value: &serde_json::Value) -> String {
    let text = value.to_string();
    if !text.chars().any(needs_escape) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if needs_escape(c) {
            write!(escaped, "\\u{:04x}", u32::from(c)).expect("writing to a string cannot fail");
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// What a reply's line is to a client that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// The request was carried out; the reply ends here.
    Ok,
    /// It was refused; the reply ends here.
    Err,
}

/// What a line (without its end) closes; none for a payload line. Knows both forms.
#[must_use]
pub fn closing(line: &str) -> Option<Closing> {
    if line == "OK" || line.starts_with("OK ") {
        return Some(Closing::Ok);
    }
    if line.starts_with("ERR ") {
        return Some(Closing::Err);
    }
    // Our payload objects have no field `ok`.
    let object: serde_json::Value = line.starts_with('{').then(|| serde_json::from_str(line).ok())??;
    match object.get("ok")?.as_bool()? {
        true => Some(Closing::Ok),
        false => Some(Closing::Err),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        parse_line(line.as_bytes()).unwrap().unwrap_or_default().into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn json_does_nothing_to_a_terminal_and_says_the_same() {
        let value = serde_json::json!({ "name": "a\u{1b}\n\u{7f}\u{9b}31m\u{202e}\u{feff}ü😀" });
        let text = json_text(&value);
        assert!(text.is_ascii() || text.chars().all(|c| !needs_escape(c)), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        assert_eq!(words("  add  \t/a/b.st "), ["add", "/a/b.st"]);
        assert_eq!(words(r#"a"b c"d'e f'\ g "" ''"#), ["ab cde f g", "", ""]);
        assert_eq!(words(r#""a\"b\\c\n" '\"' \'"#), [r#"a"b\c\n"#, r#"\""#, "'"]);
        assert_eq!(words("list#no"), ["list#no"]);
        assert_eq!(words("ünï ✓"), ["ünï", "✓"]);
    }

    #[test]
    fn blank_lines_and_comments_have_no_words() {
        for line in ["", "   ", "\t", "# list", "#"] {
            assert_eq!(parse_line(line.as_bytes()), Ok(None), "{line:?}");
        }
    }

    #[test]
    fn lines_that_are_no_words_are_refused() {
        for line in ["\"a", "'a", "a\\", "a \"b\\\"", "list 'x' '"] {
            assert_eq!(parse_line(line.as_bytes()), Err(LineError::Unfinished), "{line:?}");
        }
        assert_eq!(parse_line(b"list \xff"), Err(LineError::NotText));
        assert_eq!(parse_line(b"list \x1b[2J"), Err(LineError::ControlCharacter));
        assert_eq!(parse_line("a ".repeat(WORDS_MAX + 1).as_bytes()), Err(LineError::TooManyWords));
        assert_eq!(words(&"a ".repeat(WORDS_MAX)).len(), WORDS_MAX);
    }

    #[test]
    fn options_have_a_bare_key() {
        let options = |line: &str| {
            let words = parse_line(line.as_bytes()).unwrap().unwrap();
            words
                .iter()
                .map(|word| word.option().map(|(key, value)| (key.to_owned(), value.to_owned())))
                .collect::<Vec<_>>()
        };
        let pair = |key: &str, value: &str| Some((key.to_owned(), value.to_owned()));
        assert_eq!(options("dir=/a only=0,2 x="), [pair("dir", "/a"), pair("only", "0,2"), pair("x", "")]);
        assert_eq!(
            options(r#"dir="/a b"=c di\r=x "a=b" 'a'=b a"="b"#),
            [pair("dir", "/a b=c"), None, None, None, None]
        );
        assert_eq!(options("magnet:?xt=urn /a=b =x http://h/?a=b A=b"), [None, None, None, None, None]);
    }

    #[test]
    fn what_strangers_name_things_cannot_forge_a_line() {
        assert_eq!(escape("a\nOK\r\t\0\x1b\x7f\\"), r"a\nOK\r\t\x00\x1b\x7f\\");
        assert_eq!(escape("\u{9b}x\u{202e}cod"), r"\xc2\x9bx\xe2\x80\xaecod");
        assert!(matches!(escape("ünï ✓"), Cow::Borrowed(_)));
        let mut out = String::new();
        for line in ["OK", "OK all is well", "ERR io no", "OKAY", "ERROR", "O", "fine\nOK"] {
            push_payload(&mut out, line);
        }
        assert_eq!(out, "\\x4fK\n\\x4fK all is well\n\\x45RR io no\n\\x4fKAY\n\\x45RROR\nO\nfine\\nOK\n");
    }

    #[test]
    fn closing_lines_are_told_from_payload() {
        let mut out = String::new();
        push_ok(&mut out, "");
        push_ok(&mut out, "12\n34");
        push_err(&mut out, "not-found", "no such torrent\nsee `list`");
        push_json_ok(&mut out, &[]);
        push_json_err(&mut out, "io", "no");
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines[1], r"OK 12\n34");
        assert_eq!(lines[2], r"ERR not-found no such torrent\nsee `list`");
        assert_eq!(lines[3], r#"{"ok":true}"#);
        let all: Vec<_> = lines.iter().map(|line| closing(line)).collect();
        assert_eq!(all, [Closing::Ok, Closing::Ok, Closing::Err, Closing::Ok, Closing::Err].map(Some));
        assert!(["", "ok", "id state", r#"{"name":"x"}"#, "{"].iter().all(|line| closing(line).is_none()));
    }

    proptest! {
        #[test]
        fn quoted_words_are_read_back(texts in proptest::collection::vec("[^\\p{Cc}]{0,20}", 1..8)) {
            let line = texts.iter().map(|text| quote(text)).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(words(&line), texts);
        }

        #[test]
        fn any_bytes_give_words_or_an_error(line: Vec<u8>) {
            if let Ok(Some(words)) = parse_line(&line) {
                prop_assert!(!words.is_empty() && words.iter().map(|word| word.text.len()).sum::<usize>() <= line.len());
            }
        }

        #[test]
        fn a_payload_line_is_one_line_that_closes_nothing(text: String) {
            let mut out = String::new();
            push_payload(&mut out, &text);
            prop_assert!(out.ends_with('\n') && out.matches('\n').count() == 1);
            prop_assert!(!out.starts_with("OK") && !out.starts_with("ERR"));
            prop_assert!(out.trim_end_matches('\n').chars().all(|c| !c.is_control()));
        }
    }
}

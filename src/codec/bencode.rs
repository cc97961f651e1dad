//! Bencode (BEP 3): byte strings, integers, lists, dictionaries.
//!
//! Values borrow the input and keep their own raw bytes, so that a hash is always of the bytes as they came. Depth is
//! bounded, and so is the number of values, by what the caller says. `parse_canonical` is for what we wrote ourselves, `.st`
//! files among it: keys in order and nothing left over; `parse` forgives the order of keys, which real trackers and clients
//! get wrong, and nothing else.

use std::fmt;
use std::io::Write;

use nom::IResult;
use nom::Parser;
use nom::bytes::complete::{tag, take, take_while_m_n};
use nom::character::complete::char;
use nom::combinator::{opt, recognize};
use nom::error::{Error as NomError, ErrorKind};
use nom::sequence::{delimited, terminated};

use crate::base::steps;

/// Lists and dictionaries within one another; one more is refused.
pub const DEPTH_MAX: usize = 32;
/// Values in a document from the disk; more are refused. Metainfo is read without such a bound, by
/// [`crate::codec::bencode_scan`]. What strangers send has
/// its own, smaller bound, where it is read.
pub const VALUES_MAX: usize = 2_000_000;
/// Digits of a length or an integer: 2⁶³ has nineteen.
const DIGITS_MAX: usize = 19;

/// A value with the bytes it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value<'a> {
    /// Its own bytes, exactly.
    pub raw: &'a [u8],
    /// What they mean.
    pub kind: Kind<'a>,
}

/// The four kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'a> {
    /// An integer that fits 64 bits.
    Int(i64),
    /// A byte string.
    Bytes(&'a [u8]),
    /// A list.
    List(Vec<Value<'a>>),
    /// A dictionary, in the order of its keys.
    Dict(Dict<'a>),
}

/// A dictionary: no key twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dict<'a> {
    entries: Vec<(&'a [u8], Value<'a>)>,
}

/// What is wrong, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BencodeError {
    /// Bytes from the start of the document.
    pub offset: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// It ends too early, or there is something that is no value.
    Malformed,
    /// See [`DEPTH_MAX`].
    TooDeep,
    /// More values than the reader allows, as [`VALUES_MAX`].
    TooMany,
    /// A key stands there twice.
    DuplicateKey,
    /// A key stands after a greater one.
    UnsortedKey,
    /// Something follows the value.
    Trailing,
}

impl fmt::Display for BencodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.problem {
            Problem::Malformed => "it is cut short or not bencoded",
            Problem::TooDeep => "lists and dictionaries are nested too deep",
            Problem::TooMany => "there are too many values",
            Problem::DuplicateKey => "a key stands there twice",
            Problem::UnsortedKey => "a key is out of order",
            Problem::Trailing => "something follows the end",
        };
        write!(f, "byte {}: {what}", self.offset)
    }
}

/// Reads a whole document of at most `values_max` values; keys may be in any order.
///
/// # Errors
/// See [`Problem`].
pub fn parse(input: &[u8], values_max: usize) -> Result<Value<'_>, BencodeError> {
    parse_noting(input, values_max).map(|(value, _)| value)
}

/// Reads a whole document of at most `values_max` values in canonical form.
///
/// # Errors
/// See [`Problem`].
pub fn parse_canonical(input: &[u8], values_max: usize) -> Result<Value<'_>, BencodeError> {
    match parse_noting(input, values_max)? {
        (value, None) => Ok(value),
        (_, Some(error)) => Err(error),
    }
}

/// Reads one value, of at most `values_max` with those inside it, from the front; the rest follows it.
///
/// # Errors
/// See [`Problem`]; never `Trailing`.
pub fn parse_front(input: &[u8], values_max: usize) -> Result<(Value<'_>, &[u8]), BencodeError> {
    let mut reader = Reader::new(input, values_max);
    match reader.value(input, 0) {
        Ok((rest, value)) => Ok((value, rest)),
        Err(nom::Err::Error(error) | nom::Err::Failure(error)) => Err(reader.error(error.input)),
        Err(nom::Err::Incomplete(_)) => Err(reader.error(&input[input.len()..])),
    }
}

/// Reads a whole document of at most `values_max` values; keys may be in any order. With it, where it is not in canonical form.
///
/// # Errors
/// See [`Problem`].
pub fn parse_noting(input: &[u8], values_max: usize) -> Result<(Value<'_>, Option<BencodeError>), BencodeError> {
    let mut reader = Reader::new(input, values_max);
    match reader.value(input, 0) {
        Ok((&[], value)) => {
            let unsorted = reader.unsorted.map(|offset| BencodeError { offset, problem: Problem::UnsortedKey });
            Ok((value, unsorted))
        }
        Ok((rest, _)) => Err(BencodeError { offset: input.len() - rest.len(), problem: Problem::Trailing }),
        Err(nom::Err::Error(error) | nom::Err::Failure(error)) => Err(reader.error(error.input)),
        Err(nom::Err::Incomplete(_)) => Err(reader.error(&input[input.len()..])),
    }
}

type Parsed<'a, T> = IResult<&'a [u8], T, NomError<&'a [u8]>>;

/// One reading of a document: what is counted across all of it.
struct Reader {
    start: usize,
    values: usize,
    values_max: usize,
    /// Where the first key stands that is out of order.
    unsorted: Option<usize>,
    /// What went wrong, where it was not simply malformed.
    problem: Option<Problem>,
}

impl Drop for Reader {
    /// What was parsed counts however it ended.
    fn drop(&mut self) {
        steps::add(self.values);
    }
}

impl Reader {
    fn new(input: &[u8], values_max: usize) -> Self {
        Self { start: input.as_ptr() as usize, values: 0, values_max, unsorted: None, problem: None }
    }

    fn error(&self, at: &[u8]) -> BencodeError {
        let offset = (at.as_ptr() as usize).saturating_sub(self.start);
        BencodeError { offset, problem: self.problem.unwrap_or(Problem::Malformed) }
    }

    fn fail<'a, T>(&mut self, at: &'a [u8], problem: Problem) -> Parsed<'a, T> {
        self.problem = Some(problem);
        Err(nom::Err::Failure(NomError::new(at, ErrorKind::Verify)))
    }

    /// The value that `input` begins with, inside `depth` lists and dictionaries.
    fn value<'a>(&mut self, input: &'a [u8], depth: usize) -> Parsed<'a, Value<'a>> {
        if depth == DEPTH_MAX && matches!(input.first(), Some(b'l' | b'd')) {
            return self.fail(input, Problem::TooDeep);
        }
        self.values += 1;
        if self.values > self.values_max {
            return self.fail(input, Problem::TooMany);
        }
        let (rest, kind) = match input.first() {
            Some(b'i') => integer(input).map(|(rest, int)| (rest, Kind::Int(int)))?,
            Some(b'l') => self.list(&input[1..], depth)?,
            Some(b'd') => self.dict(&input[1..], depth)?,
            _ => bytes(input).map(|(rest, bytes)| (rest, Kind::Bytes(bytes)))?,
        };
        Ok((rest, Value { raw: &input[..input.len() - rest.len()], kind }))
    }

    fn list<'a>(&mut self, mut input: &'a [u8], depth: usize) -> Parsed<'a, Kind<'a>> {
        let mut items = Vec::new();
        while input.first() != Some(&b'e') {
            let (rest, item) = self.value(input, depth + 1)?;
            items.push(item);
            input = rest;
        }
        Ok((&input[1..], Kind::List(items)))
    }

    fn dict<'a>(&mut self, mut input: &'a [u8], depth: usize) -> Parsed<'a, Kind<'a>> {
        let mut entries: Vec<(&[u8], Value<'_>)> = Vec::new();
        let mut sorted = true;
        while input.first() != Some(&b'e') {
            let (rest, key) = bytes(input)?;
            if let Some((last, _)) = entries.last()
                && *last >= key
            {
                if *last == key {
                    return self.fail(input, Problem::DuplicateKey);
                }
                self.unsorted.get_or_insert((input.as_ptr() as usize).saturating_sub(self.start));
                sorted = false;
            }
            let (rest, value) = self.value(rest, depth + 1)?;
            entries.push((key, value));
            input = rest;
        }
        if !sorted {
            entries.sort_by_key(|(key, _)| *key);
            if entries.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return self.fail(input, Problem::DuplicateKey);
            }
        }
        Ok((&input[1..], Kind::Dict(Dict { entries })))
    }
}

/// Digits without a leading zero.
fn digits(input: &[u8]) -> Parsed<'_, &[u8]> {
    let (rest, digits) = take_while_m_n(1, DIGITS_MAX, |byte: u8| byte.is_ascii_digit()).parse(input)?;
    if digits.len() > 1 && digits[0] == b'0' {
        return Err(nom::Err::Error(NomError::new(input, ErrorKind::Digit)));
    }
    Ok((rest, digits))
}

fn integer(input: &[u8]) -> Parsed<'_, i64> {
    let (rest, text) = delimited(tag(&b"i"[..]), recognize((opt(char('-')), digits)), char('e')).parse(input)?;
    let number = std::str::from_utf8(text).ok().filter(|text| *text != "-0").and_then(|text| text.parse().ok());
    number.map(|number| (rest, number)).ok_or(nom::Err::Error(NomError::new(input, ErrorKind::Digit)))
}

fn bytes(input: &[u8]) -> Parsed<'_, &[u8]> {
    let (rest, len) = terminated(digits, char(':')).parse(input)?;
    let len: Option<usize> = std::str::from_utf8(len).ok().and_then(|text| text.parse().ok());
    match len.filter(|&len| len <= rest.len()) {
        Some(len) => take(len).parse(rest),
        None => Err(nom::Err::Error(NomError::new(input, ErrorKind::LengthValue))),
    }
}

impl<'a> Value<'a> {
    /// The integer, if it is one.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        if let Kind::Int(int) = self.kind { Some(int) } else { None }
    }

    /// The byte string, if it is one.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        if let Kind::Bytes(bytes) = self.kind { Some(bytes) } else { None }
    }

    /// The list, if it is one.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Value<'a>]> {
        if let Kind::List(items) = &self.kind { Some(items) } else { None }
    }

    /// The dictionary, if it is one.
    #[must_use]
    pub fn as_dict(&self) -> Option<&Dict<'a>> {
        if let Kind::Dict(dict) = &self.kind { Some(dict) } else { None }
    }
}

impl<'a> Dict<'a> {
    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Value<'a>> {
        let index = self.entries.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        Some(&self.entries[index].1)
    }

    /// The integer at `key`, if there is one.
    #[must_use]
    pub fn int(&self, key: &[u8]) -> Option<i64> {
        self.get(key)?.as_int()
    }

    /// The byte string at `key`, if there is one.
    #[must_use]
    pub fn bytes(&self, key: &[u8]) -> Option<&'a [u8]> {
        self.get(key)?.as_bytes()
    }

    /// The list at `key`, if there is one.
    #[must_use]
    pub fn list(&self, key: &[u8]) -> Option<&[Value<'a>]> {
        self.get(key)?.as_list()
    }

    /// The dictionary at `key`, if there is one.
    #[must_use]
    pub fn dict(&self, key: &[u8]) -> Option<&Dict<'a>> {
        self.get(key)?.as_dict()
    }

    /// All entries, in the order of their keys.
    #[must_use]
    pub fn entries(&self) -> &[(&'a [u8], Value<'a>)] {
        &self.entries
    }
}

/// Appends an integer.
pub fn write_int(out: &mut Vec<u8>, int: i64) {
    write!(out, "i{int}e").expect("a vector takes all");
}

/// Appends a byte string.
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write!(out, "{}", bytes.len()).expect("a vector takes all");
    out.push(b':');
    out.extend_from_slice(bytes);
}

/// Writes a dictionary key by key.
#[derive(Debug)]
pub struct DictWriter<'o> {
    out: &'o mut Vec<u8>,
    last: Vec<u8>,
}

impl<'o> DictWriter<'o> {
    /// Begins a dictionary at the end of `out`.
    #[must_use]
    pub fn begin(out: &'o mut Vec<u8>) -> Self {
        out.push(b'd');
        Self { out, last: Vec::new() }
    }

    /// Writes a key; the value is whatever is appended next.
    ///
    /// # Panics
    /// If it does not come after the one before.
    pub fn key(&mut self, key: impl AsRef<[u8]>) -> &mut Vec<u8> {
        let key = key.as_ref();
        assert!(self.last.is_empty() || self.last.as_slice() < key, "key {} is out of order", key.escape_ascii());
        self.last.clear();
        self.last.extend_from_slice(key);
        write_bytes(self.out, key);
        self.out
    }

    /// Writes a key and an integer.
    pub fn int(&mut self, key: impl AsRef<[u8]>, int: i64) {
        write_int(self.key(key), int);
    }

    /// Writes a key and a byte string.
    pub fn bytes(&mut self, key: impl AsRef<[u8]>, bytes: &[u8]) {
        write_bytes(self.key(key), bytes);
    }

    /// Ends the dictionary.
    pub fn end(self) {
        self.out.push(b'e');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(input: &[u8]) -> (usize, Problem) {
        let error = parse_canonical(input, VALUES_MAX).unwrap_err();
        (error.offset, error.problem)
    }

    #[test]
    fn values_keep_their_own_bytes() {
        let value = parse(b"d4:infod4:name1:xe1:zi-5ee", VALUES_MAX).unwrap();
        let dict = value.as_dict().unwrap();
        assert_eq!(dict.get(b"info").unwrap().raw, b"d4:name1:xe");
        assert_eq!(dict.int(b"z"), Some(-5));
        assert_eq!(dict.dict(b"info").unwrap().bytes(b"name"), Some(&b"x"[..]));
        let (front, rest) = parse_front(b"l1:aei7erest", VALUES_MAX).unwrap();
        assert_eq!((front.raw, rest), (&b"l1:ae"[..], &b"i7erest"[..]));
    }

    #[test]
    fn what_is_not_canonical_is_refused_with_its_place() {
        assert_eq!(problem(b"d1:bi1e1:ai2ee"), (7, Problem::UnsortedKey));
        assert_eq!(problem(b"d1:ai1e1:ai2ee"), (7, Problem::DuplicateKey));
        assert_eq!(problem(b"i1ex"), (3, Problem::Trailing));
        for bad in [
            &b""[..],
            b"i",
            b"ie",
            b"i-0e",
            b"i01e",
            b"i-e",
            b"i1",
            b"01:a",
            b"2:a",
            b"-1:a",
            b"1a",
            b"l",
            b"d",
            b"d1:ae",
            b"di1ei2ee",
            b"x",
            b"i99999999999999999999e",
            b"99999999999999999999:",
        ] {
            assert_eq!(problem(bad).1, Problem::Malformed, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn keys_out_of_order_are_forgiven_elsewhere_but_never_twice() {
        let value = parse(b"d1:bi1e1:ai2ee", VALUES_MAX).unwrap();
        assert_eq!(value.as_dict().unwrap().int(b"a"), Some(2));
        assert_eq!(parse(b"d1:bi1e1:ai2e1:bi3ee", VALUES_MAX).unwrap_err().problem, Problem::DuplicateKey);
    }

    #[test]
    fn bombs_of_depth_and_number_are_refused_at_once() {
        assert_eq!(parse(&vec![b'l'; 100_000_000], VALUES_MAX).unwrap_err().problem, Problem::TooDeep);
        let mut many = vec![b'l'];
        many.extend(b"0:".repeat(99));
        many.push(b'e');
        assert!(parse(&many, 100).is_ok(), "the list is a value, too");
        assert_eq!(parse(&many, 99).unwrap_err(), BencodeError { offset: 1 + 98 * 2, problem: Problem::TooMany });
        assert_eq!(parse_front(&many, 99).unwrap_err().problem, Problem::TooMany);
        assert_eq!(parse_canonical(&many, 99).unwrap_err().problem, Problem::TooMany);
    }

    #[test]
    fn nesting_is_as_deep_as_the_limit_says_and_no_deeper() {
        let nested = |depth: usize, core: &[u8]| [&b"l".repeat(depth)[..], core, &b"e".repeat(depth)].concat();
        assert!(parse(&nested(DEPTH_MAX, b"i1e"), VALUES_MAX).is_ok());
        let error = parse(&nested(DEPTH_MAX + 1, b""), VALUES_MAX).unwrap_err();
        assert_eq!(error, BencodeError { offset: DEPTH_MAX, problem: Problem::TooDeep });
    }

    #[test]
    fn an_error_in_the_front_value_has_its_place_too() {
        assert_eq!(
            parse_front(b"d1:a", VALUES_MAX).unwrap_err(),
            BencodeError { offset: 4, problem: Problem::Malformed }
        );
        assert_eq!(parse_front(b"", VALUES_MAX).unwrap_err().offset, 0);
    }

    #[test]
    #[should_panic(expected = "out of order")]
    fn our_own_dictionaries_are_written_in_order() {
        let mut out = Vec::new();
        let mut dict = DictWriter::begin(&mut out);
        dict.int("b", 1);
        dict.int("a", 1);
    }

    #[test]
    fn the_extremes_of_integers_are_read() {
        assert_eq!(parse(b"i9223372036854775807e", VALUES_MAX).unwrap().as_int(), Some(i64::MAX));
        assert_eq!(parse(b"i-9223372036854775808e", VALUES_MAX).unwrap().as_int(), Some(i64::MIN));
        assert!(parse(b"i9223372036854775808e", VALUES_MAX).is_err());
    }
}

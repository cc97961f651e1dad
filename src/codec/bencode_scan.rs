//! Bencode (BEP 3) token by token: the same rules as [`crate::codec::bencode`], without a tree of values.
//!
//! A metainfo file of 64 MiB has up to 32 million values. The scanner keeps only what is open, so that it can stop after any
//! token and go on in a later call.

use std::cmp::Ordering;
use std::ops::Range;

use crate::base::merge_sort::MergeSort;
use crate::base::steps::Allowance;
use crate::codec::bencode::{BencodeError, DEPTH_MAX, Problem};

/// Keys of all dictionaries that are open at one moment; a document with more is refused.
pub const OPEN_KEYS_MAX: usize = 2_000_000;
/// Digits of a length or an integer: 2⁶³ has nineteen.
const DIGITS_MAX: usize = 19;

/// The next part of a document. Positions are bytes from its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// An integer.
    Int(i64),
    /// The content of a byte string that is a value.
    Bytes(Range<usize>),
    /// The content of a byte string that is a key.
    Key(Range<usize>),
    /// A list begins.
    List,
    /// A dictionary begins.
    Dict,
    /// The list or dictionary that began last ends.
    End,
    /// The allowance is spent inside a token that takes longer: ask again.
    Busy,
    /// The document is over.
    Over,
}

/// A list or dictionary that has begun and not ended.
#[derive(Debug)]
struct Open {
    is_dict: bool,
    /// The key was read, and its value is next.
    has_key: bool,
    /// Its first key in `keys`.
    keys: usize,
    is_sorted: bool,
}

/// Keys of a dictionary, out of order, in which duplicates are searched for.
#[derive(Debug)]
struct Duplicates {
    sort: MergeSort,
    is_sorted: bool,
    compared: usize,
}

/// Reads one document.
#[derive(Debug)]
pub struct Scanner {
    at: usize,
    end: usize,
    open: Vec<Open>,
    /// The keys of all open dictionaries.
    keys: Vec<Range<u32>>,
    /// Where the first key stands that is out of order.
    unsorted: Option<usize>,
    duplicates: Option<Duplicates>,
    is_over: bool,
}

impl Scanner {
    /// A scanner of the value that fills `range` of what will be passed to [`Scanner::next`].
    #[must_use]
    pub const fn new(range: Range<usize>) -> Self {
        Self {
            at: range.start,
            end: range.end,
            open: Vec::new(),
            keys: Vec::new(),
            unsorted: None,
            duplicates: None,
            is_over: false,
        }
    }

    /// Where the next token begins, or the one ended that was returned last.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    /// How many lists and dictionaries are open.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// The position of the first key that is out of order. `None` if there was none so far.
    #[must_use]
    pub const fn unsorted(&self) -> Option<usize> {
        self.unsorted
    }

    /// The next token of `input`, which must be the same bytes at every call.
    ///
    /// # Errors
    /// See [`Problem`]; what follows the value is `Trailing`.
    pub fn next(&mut self, input: &[u8], allowance: &mut Allowance) -> Result<Token, BencodeError> {
        if self.duplicates.is_some() {
            return self.find_duplicates(input, allowance);
        }
        let input = &input[..self.end];
        if self.is_over {
            return if self.at == self.end { Ok(Token::Over) } else { Err(self.error(Problem::Trailing)) };
        }
        allowance.spend(1);
        let start = self.at;
        let first = input.get(start).copied();
        if let (Some(b'e'), Some(open)) = (first, self.open.last()) {
            return match (open.has_key, open.is_sorted) {
                (true, _) => Err(self.error(Problem::Malformed)),
                (false, true) => Ok(self.close()),
                (false, false) => {
                    let index = |at| u32::try_from(at).expect("OPEN_KEYS_MAX fits");
                    let sort = MergeSort::of_range(index(open.keys)..index(self.keys.len()));
                    self.duplicates = Some(Duplicates { sort, is_sorted: false, compared: 0 });
                    self.find_duplicates(input, allowance)
                }
            };
        }
        if self.open.last().is_some_and(|open| open.is_dict && !open.has_key) {
            let key = self.bytes(input)?;
            self.note_key(input, start, &key)?;
            return Ok(Token::Key(key));
        }
        let token = match first {
            Some(b'i') => self.integer(input)?,
            Some(kind @ (b'l' | b'd')) => {
                if self.open.len() == DEPTH_MAX {
                    return Err(self.error(Problem::TooDeep));
                }
                self.at += 1;
                let is_dict = kind == b'd';
                self.open.push(Open { is_dict, has_key: false, keys: self.keys.len(), is_sorted: true });
                return Ok(if is_dict { Token::Dict } else { Token::List });
            }
            _ => Token::Bytes(self.bytes(input)?),
        };
        self.end_value();
        Ok(token)
    }

    /// A value has ended.
    fn end_value(&mut self) {
        match self.open.last_mut() {
            Some(open) => open.has_key = false,
            None => self.is_over = true,
        }
    }

    fn close(&mut self) -> Token {
        let open = self.open.pop().expect("something is open");
        self.keys.truncate(open.keys);
        self.at += 1;
        self.end_value();
        Token::End
    }

    fn error(&self, problem: Problem) -> BencodeError {
        BencodeError { offset: self.at, problem }
    }

    fn note_key(&mut self, input: &[u8], start: usize, key: &Range<usize>) -> Result<(), BencodeError> {
        let error = |problem| Err(BencodeError { offset: start, problem });
        let open = self.open.last_mut().expect("a key is in a dictionary");
        open.has_key = true;
        if self.keys.len() > open.keys
            && let Some(last) = self.keys.last()
        {
            match bytes_of(input, last).cmp(&input[key.clone()]) {
                Ordering::Less => {}
                Ordering::Equal => return error(Problem::DuplicateKey),
                Ordering::Greater => {
                    self.unsorted.get_or_insert(start);
                    open.is_sorted = false;
                }
            }
        }
        if self.keys.len() == OPEN_KEYS_MAX {
            return error(Problem::TooMany);
        }
        let position = |at| u32::try_from(at).expect("documents are shorter than 4 GiB");
        self.keys.push(position(key.start)..position(key.end));
        Ok(())
    }

    /// Looks for a key that stands twice in the dictionary that is about to end.
    fn find_duplicates(&mut self, input: &[u8], allowance: &mut Allowance) -> Result<Token, BencodeError> {
        let Some(duplicates) = &mut self.duplicates else { return Ok(Token::Busy) };
        let key = |index: u32| bytes_of(input, &self.keys[index as usize]);
        if !duplicates.is_sorted {
            duplicates.is_sorted = duplicates.sort.step(allowance, |allowance, one, other| {
                let (one, other) = (key(one), key(other));
                allowance.spend_bytes(one.len().min(other.len()));
                one.cmp(other)
            });
            if !duplicates.is_sorted {
                return Ok(Token::Busy);
            }
        }
        let items = duplicates.sort.items();
        while duplicates.compared + 1 < items.len() {
            if allowance.is_spent() {
                return Ok(Token::Busy);
            }
            let (one, other) = (key(items[duplicates.compared]), key(items[duplicates.compared + 1]));
            allowance.spend_bytes(one.len().min(other.len()));
            if one == other {
                return Err(BencodeError { offset: self.at, problem: Problem::DuplicateKey });
            }
            duplicates.compared += 1;
        }
        self.duplicates = None;
        Ok(self.close())
    }

    /// The byte string at the current position.
    fn bytes(&mut self, input: &[u8]) -> Result<Range<usize>, BencodeError> {
        let (len, digits) = number(&input[self.at..]).ok_or(self.error(Problem::Malformed))?;
        let start = self.at + digits + 1;
        let is_string = input.get(start - 1) == Some(&b':');
        let len = usize::try_from(len).ok().filter(|&len| is_string && len <= input.len() - start);
        let len = len.ok_or(self.error(Problem::Malformed))?;
        self.at = start + len;
        Ok(start..start + len)
    }

    /// The integer at the current position, which is an `i`.
    fn integer(&mut self, input: &[u8]) -> Result<Token, BencodeError> {
        let start = self.at + 1;
        let is_negative = input.get(start) == Some(&b'-');
        let first = start + usize::from(is_negative);
        let parsed = number(&input[first..]).and_then(|(number, digits)| {
            let number = i128::from(number);
            let number = i64::try_from(if is_negative { -number } else { number }).ok()?;
            (!is_negative || number != 0).then_some((number, digits))
        });
        let (number, digits) = parsed.ok_or(self.error(Problem::Malformed))?;
        if input.get(first + digits) != Some(&b'e') {
            return Err(self.error(Problem::Malformed));
        }
        self.at = first + digits + 1;
        Ok(Token::Int(number))
    }
}

fn bytes_of<'i>(input: &'i [u8], range: &Range<u32>) -> &'i [u8] {
    &input[range.start as usize..range.end as usize]
}

/// The number that `input` begins with, without a leading zero, and how many digits it has.
fn number(input: &[u8]) -> Option<(u64, usize)> {
    let digits = input.iter().take(DIGITS_MAX).take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || (digits > 1 && input[0] == b'0') {
        return None;
    }
    let number = input[..digits].iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some((number, digits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::bencode;

    /// Scans all of it in slices of `budget` steps; the position of a key that is out of order, if there is one.
    fn scan(input: &[u8], budget: u64) -> Result<Option<usize>, Problem> {
        let mut scanner = Scanner::new(0..input.len());
        let mut allowance = Allowance::new(budget);
        loop {
            match scanner.next(input, &mut allowance).map_err(|error| error.problem)? {
                Token::Busy => allowance = Allowance::new(budget),
                Token::Over => return Ok(scanner.unsorted()),
                _ => {}
            }
        }
    }

    fn both(input: &[u8]) {
        let tree = bencode::parse_noting(input, bencode::VALUES_MAX);
        let tree = tree.map(|(_, unsorted)| unsorted.map(|error| error.offset)).map_err(|error| error.problem);
        for budget in [1, 10, u64::MAX] {
            assert_eq!(scan(input, budget), tree, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn scanner_accepts_and_refuses_what_the_tree_does() {
        for input in [
            &b""[..],
            b"i1e",
            b"i-1e",
            b"i-0e",
            b"i01e",
            b"ie",
            b"i1",
            b"i9223372036854775807e",
            b"i-9223372036854775808e",
            b"i9223372036854775808e",
            b"i99999999999999999999e",
            b"0:",
            b"01:a",
            b"2:a",
            b"1a",
            b"99999999999999999999:",
            b"l",
            b"le",
            b"lee",
            b"d",
            b"de",
            b"d1:ae",
            b"d1:ai1ee",
            b"di1ei2ee",
            b"d1:bi1e1:ai2ee",
            b"d1:bi1e1:ai2e1:bi3ee",
            b"d1:ai1e1:ai2ee",
            b"d1:bd1:zi1e1:yi2ee1:al1:xeee",
            b"i1ex",
            b"e",
            b"x",
        ] {
            both(input);
        }
        both(&b"l".repeat(DEPTH_MAX + 1));
        both(&[b"l".repeat(DEPTH_MAX), b"e".repeat(DEPTH_MAX)].concat());
    }

    #[test]
    fn long_dictionary_out_of_order_is_scanned_in_slices() {
        let keys = |count: u32| (0..count).rev().map(|key| format!("8:{key:08}i0e")).collect::<String>();
        let input = format!("d{}e", keys(20_000));
        let mut scanner = Scanner::new(0..input.len());
        let mut slices = 0;
        loop {
            slices += 1;
            let mut allowance = Allowance::new(5000);
            let token = loop {
                let token = scanner.next(input.as_bytes(), &mut allowance).unwrap();
                if allowance.is_spent() || token == Token::Over {
                    break token;
                }
            };
            if token == Token::Over {
                break;
            }
        }
        assert!(slices > 20, "{slices}");
        let twice = format!("d{}8:00000007i0ee", keys(20_000));
        assert_eq!(scan(twice.as_bytes(), 100), Err(Problem::DuplicateKey));
    }

    proptest! {
        #[test]
        fn mangled_documents_are_judged_as_by_the_tree(at in 0..60_usize, byte in prop::sample::select(&b"deil0123:-ab"[..])) {
            let mut input = b"d1:ad1:bi1e1:ai-20ee1:bl3:abcl0:eei7e1:cd2:aai1e2:ab1:xee".to_vec();
            let len = input.len();
            input[at % len] = byte;
            both(&input);
        }
    }
}

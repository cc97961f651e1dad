//! A Redis server as simple as can be: what the trackers' shared state needs of one, in RESP2.
//!
//! It knows sorted sets and hashes of numbers, keys that expire, a password, and no cluster. It is a script on a machine that can
//! be killed, suspended, cut off or far away; when it comes back it has lost everything, as `--save ""` does, unless it keeps it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::base::ids::ConnId;
use crate::base::time::Time;
use crate::codec::resp::Value;
use crate::protocol::redis::reader::ReplyReader;
use crate::sim::hostile::Act;

/// The password that it wants.
pub(crate) const PASSWORD: &str = "sim";
/// Databases that may be selected. They are one.
const DATABASES: i64 = 16;

/// What a key holds.
#[derive(Debug)]
enum Kept {
    /// Members by name, and by score.
    Set(BTreeMap<Vec<u8>, u64>, BTreeSet<(u64, Vec<u8>)>),
    Hash(BTreeMap<Vec<u8>, i64>),
}

/// A stream to it.
#[derive(Debug, Default)]
struct Line {
    reader: ReplyReader,
    has_login: bool,
}

/// The server.
#[derive(Debug, Default)]
pub struct Store {
    /// It has nothing on its disk.
    forgets: bool,
    is_down: bool,
    lines: BTreeMap<ConnId, Line>,
    /// What came and is to be answered.
    came: VecDeque<(ConnId, Vec<u8>)>,
    acts: VecDeque<Act>,
    keys: BTreeMap<Vec<u8>, (Kept, Time)>,
    /// Commands that it has answered.
    pub(crate) commands: u64,
    /// Of these, errors.
    pub(crate) refused: u64,
    /// How often it has lost everything.
    pub(crate) losses: u32,
}

impl Store {
    /// One that runs, and `forgets` what it knew when it stops.
    pub(crate) fn new(forgets: bool) -> Self {
        Self { forgets, ..Self::default() }
    }

    pub(crate) const fn is_down(&self) -> bool {
        self.is_down
    }

    /// Its program ends.
    pub(crate) fn stop(&mut self) {
        self.is_down = true;
        self.lines.clear();
        self.came.clear();
        self.acts.clear();
        if self.forgets {
            self.losses += u32::from(!self.keys.is_empty());
            self.keys.clear();
        }
    }

    /// And starts again.
    pub(crate) const fn start(&mut self) {
        self.is_down = false;
    }

    pub(crate) fn handle_accepted(&mut self, conn: ConnId) {
        self.lines.insert(conn, Line::default());
    }

    pub(crate) fn handle_closed(&mut self, conn: ConnId) {
        self.lines.remove(&conn);
    }

    pub(crate) fn handle_bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        self.came.push_back((conn, bytes.to_vec()));
    }

    /// What it does next: it answers what came.
    pub(crate) fn poll_act(&mut self, now: Time) -> Option<Act> {
        while let Some((conn, bytes)) = self.came.pop_front() {
            let Some(mut line) = self.lines.remove(&conn) else { continue };
            let mut commands = Vec::new();
            let is_good = line.reader.read(&bytes, &mut commands).is_ok();
            let mut out = Vec::new();
            for command in &commands {
                let words: Vec<&[u8]> = command.array().unwrap_or_default().iter().filter_map(Value::bytes).collect();
                let answer = self.answer(now, &mut line, &words);
                self.commands += 1;
                self.refused += u64::from(matches!(answer, Value::Error(_)));
                answer.write(&mut out);
            }
            self.acts.push_back(Act::Send(conn, out));
            if is_good {
                self.lines.insert(conn, line);
            } else {
                self.acts.push_back(Act::Close(conn));
            }
        }
        self.acts.pop_front()
    }

    fn answer(&mut self, now: Time, line: &mut Line, words: &[&[u8]]) -> Value {
        let name = words.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
        if !line.has_login && name != b"AUTH" {
            return error("NOAUTH Authentication required.");
        }
        match (name.as_slice(), &words[words.len().min(1)..]) {
            (b"AUTH", [.., password]) => {
                line.has_login = *password == PASSWORD.as_bytes();
                if line.has_login { ok() } else { error("WRONGPASS invalid username-password pair") }
            }
            (b"PING", []) => Value::Simple(b"PONG".to_vec()),
            (b"SELECT", [number]) if int(number).is_some_and(|number| (0..DATABASES).contains(&number)) => ok(),
            (b"CLUSTER", [..]) => error("ERR This instance has cluster support disabled"),
            (_, [key, rest @ ..]) => {
                if self.keys.get(*key).is_some_and(|(_, expires)| *expires <= now) {
                    self.keys.remove(*key);
                }
                let answer = self.answer_of(now, &name, key, rest);
                answer.unwrap_or_else(|| error("ERR unknown command or wrong arguments"))
            }
            _ => error("ERR unknown command"),
        }
    }

    fn answer_of(&mut self, now: Time, name: &[u8], key: &[u8], words: &[&[u8]]) -> Option<Value> {
        match (name, words) {
            (b"ZADD", [b"GT", pairs @ ..]) => {
                let empty = || (Kept::Set(BTreeMap::new(), BTreeSet::new()), Time::NEVER);
                let (kept, _) = self.keys.entry(key.to_vec()).or_insert_with(empty);
                let Kept::Set(members, order) = kept else { return Some(wrong_type()) };
                let mut added = 0;
                for [score, member] in pairs.as_chunks::<2>().0 {
                    let score = u64::try_from(int(score)?).ok()?;
                    let was = members.get(*member).copied();
                    if was.is_none_or(|was| score > was) {
                        added += i64::from(was.is_none());
                        members.insert(member.to_vec(), score);
                        order.remove(&(was.unwrap_or_default(), member.to_vec()));
                        order.insert((score, member.to_vec()));
                    }
                }
                Some(Value::Integer(added))
            }
            (b"ZRANGE", [b"+inf", least, b"BYSCORE", b"REV", b"LIMIT", b"0", most, b"WITHSCORES"]) => {
                let (least, most) = (u64::try_from(int(least)?).ok()?, usize::try_from(int(most)?).ok()?);
                let found = match self.keys.get(key) {
                    None => Vec::new(),
                    Some((Kept::Set(_, order), _)) => order.range((least, Vec::new())..).rev().take(most).collect(),
                    Some(_) => return Some(wrong_type()),
                };
                let pair = |(score, member): &(u64, Vec<u8>)| [bulk(member), bulk(score.to_string().as_bytes())];
                Some(Value::Array(found.into_iter().flat_map(pair).collect()))
            }
            (b"ZREMRANGEBYSCORE", [b"-inf", [b'(', below @ ..]]) => {
                let below = u64::try_from(int(below)?).ok()?;
                let Some((Kept::Set(members, order), _)) = self.keys.get_mut(key) else {
                    return Some(Value::Integer(0));
                };
                let stays = order.split_off(&(below, Vec::new()));
                let gone = std::mem::replace(order, stays);
                members.retain(|member, score| *score >= below && !member.is_empty());
                if order.is_empty() {
                    self.keys.remove(key); // an empty key is none
                }
                Some(Value::Integer(i64::try_from(gone.len()).ok()?))
            }
            (b"EXPIRE", [secs]) => {
                let secs = u64::try_from(int(secs)?).ok()?;
                let found = self.keys.get_mut(key);
                let is_there = found.is_some();
                if let Some((_, expires)) = found {
                    *expires = now + Duration::from_secs(secs);
                }
                Some(Value::Integer(i64::from(is_there)))
            }
            (b"HINCRBY", [field, by]) => {
                let (kept, _) =
                    self.keys.entry(key.to_vec()).or_insert_with(|| (Kept::Hash(BTreeMap::new()), Time::NEVER));
                let Kept::Hash(fields) = kept else { return Some(wrong_type()) };
                let number = fields.entry(field.to_vec()).or_default();
                *number += int(by)?;
                Some(Value::Integer(*number))
            }
            (b"HMGET", fields) => {
                let known = match self.keys.get(key) {
                    None => None,
                    Some((Kept::Hash(known), _)) => Some(known),
                    Some(_) => return Some(wrong_type()),
                };
                let value = |field: &&[u8]| known.and_then(|known| known.get(*field));
                let value = |field| value(field).map_or(Value::Null, |number| bulk(number.to_string().as_bytes()));
                Some(Value::Array(fields.iter().map(value).collect()))
            }
            _ => None,
        }
    }
}

fn int(word: &[u8]) -> Option<i64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn ok() -> Value {
    Value::Simple(b"OK".to_vec())
}

fn bulk(bytes: &[u8]) -> Value {
    Value::Bulk(bytes.to_vec())
}

fn error(text: &str) -> Value {
    Value::Error(text.as_bytes().to_vec())
}

fn wrong_type() -> Value {
    error("WRONGTYPE Operation against a key holding the wrong kind of value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::resp::write_command;

    fn said(store: &mut Store, secs: u64, conn: ConnId, commands: &[&str]) -> String {
        let mut bytes = Vec::new();
        for command in commands {
            let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
            write_command(&words, &mut bytes);
        }
        let (front, back) = bytes.split_at(bytes.len() / 2);
        let mut out = String::new();
        for part in [front, back] {
            store.handle_bytes(conn, part);
            while let Some(act) = store.poll_act(Time::from_secs(secs)) {
                let Act::Send(_, bytes) = act else { panic!("{act:?}") };
                out += &String::from_utf8(bytes).unwrap();
            }
        }
        out.replace("\r\n", " ").trim().to_owned()
    }

    #[test]
    fn it_answers_as_the_real_one_does() {
        let (mut store, conn) = (Store::new(true), ConnId::from_bits(1));
        store.handle_accepted(conn);
        assert_eq!(said(&mut store, 0, conn, &["PING"]), "-NOAUTH Authentication required.");
        assert_eq!(said(&mut store, 0, conn, &["AUTH sim", "SELECT 1", "PING"]), "+OK +OK +PONG");
        assert!(said(&mut store, 0, conn, &["CLUSTER SLOTS"]).contains("cluster support disabled"));
        assert_eq!(said(&mut store, 0, conn, &["ZADD k GT 5 a 7 b", "ZADD k GT 4 a 9 c", "EXPIRE k 10"]), ":2 :1 :1");
        let range = "ZRANGE k +inf 5 BYSCORE REV LIMIT 0 2 WITHSCORES";
        assert_eq!(said(&mut store, 9, conn, &[range]), "*4 $1 c $1 9 $1 b $1 7");
        assert_eq!(said(&mut store, 9, conn, &["ZREMRANGEBYSCORE k -inf (9", range]), ":2 *2 $1 c $1 9");
        assert_eq!(said(&mut store, 10, conn, &[range]), "*0", "it has expired");
        assert_eq!(said(&mut store, 10, conn, &["HINCRBY h 4 2", "HINCRBY h 4 1", "HMGET h 4 6"]), ":2 :3 *2 $1 3 $-1");
        assert!(said(&mut store, 10, conn, &["ZADD h GT 1 a"]).starts_with("-WRONGTYPE"));
        assert!(said(&mut store, 10, conn, &["FLUSHALL now"]).starts_with("-ERR"));
        store.stop();
        store.start();
        store.handle_accepted(conn);
        assert_eq!(said(&mut store, 10, conn, &["AUTH sim", "HMGET h 4"]), "+OK *1 $-1", "it has lost everything");
        assert_eq!(store.losses, 1);
    }
}

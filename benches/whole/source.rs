//! A light source: it has everything, and sends what it is asked for.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::machine;
use crate::reader::{greeting, info_hash};

const REQUEST: u8 = 6;

#[derive(Debug, Default)]
struct State {
    info_hash: [u8; 20],
    requested: Option<Instant>,
}

#[derive(Debug)]
pub struct Source {
    port: u16,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Source {
    pub fn start(content: &Path, piece_len: usize) -> Self {
        let listener = TcpListener::bind((machine::address(), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let file = File::open(content).unwrap();
        // SAFETY: nobody changes the file while the bench runs.
        #[allow(unsafe_code, reason = "the source is to cost as little as it can")]
        let map = Arc::new(unsafe { memmap2::Mmap::map(&file).unwrap() });
        let state: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (map, state) = (Arc::clone(&map), Arc::clone(&shared));
                // A client that hangs up, or asks for what is not, is served no longer.
                std::thread::spawn(move || serve(stream, &map, piece_len, &state));
            }
        });
        Self { port, state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set_torrent(&self, torrent: &Path) {
        self.state.0.lock().unwrap().info_hash = info_hash(torrent);
    }

    /// Waits for the next first request; when it came.
    pub fn wait_for_request(&self, patience: Duration) -> Option<Instant> {
        let (state, bell) = &*self.state;
        let (mut state, _) =
            bell.wait_timeout_while(state.lock().unwrap(), patience, |state| state.requested.is_none()).unwrap();
        state.requested.take()
    }
}

fn serve(
    mut stream: TcpStream,
    content: &[u8],
    piece_len: usize,
    state: &(Mutex<State>, Condvar),
) -> std::io::Result<()> {
    let info_hash = state.0.lock().unwrap().info_hash;
    stream.set_nodelay(true)?;
    let mut hello = [0; 68];
    stream.read_exact(&mut hello)?;
    if !hello.starts_with(b"\x13BitTorrent protocol") {
        return Ok(()); // it begins ciphered, and will come again in plain
    }
    let pieces = content.len().div_ceil(piece_len);
    let mut field = vec![0xff; pieces.div_ceil(8)];
    if !pieces.is_multiple_of(8) {
        *field.last_mut().unwrap() = 0xff << (8 - pieces % 8);
    }
    let mut then = u32::try_from(field.len() + 1).unwrap().to_be_bytes().to_vec();
    then.push(5);
    then.extend(field);
    then.extend([0, 0, 0, 1, 1]);
    stream.write_all(&greeting(&info_hash, &then))?;
    let (mut buf, mut kept, mut begun) = (vec![0; 256 * 1024], 0, false);
    loop {
        let read = stream.read(&mut buf[kept..])?;
        if read == 0 {
            return Ok(());
        }
        let (mut heads, mut asked) = (Vec::new(), Vec::new());
        let mut rest = &buf[..kept + read];
        while let Some((head, more)) = rest.split_first_chunk::<4>() {
            let len = u32::from_be_bytes(*head) as usize;
            if more.len() < len {
                break;
            }
            if len == 13 && more[0] == REQUEST {
                let number = |at: usize| u32::from_be_bytes(more[at..at + 4].try_into().unwrap()) as usize;
                let (offset, len) = (number(1) * piece_len + number(5), number(9));
                heads.push([&u32::try_from(9 + len).unwrap().to_be_bytes(), &[7][..], &more[1..9]].concat());
                asked.push(&content[offset..offset + len]);
            }
            rest = &more[len..];
        }
        let left = rest.len();
        buf.copy_within(kept + read - left..kept + read, 0);
        kept = left;
        if !begun && !asked.is_empty() {
            begun = true;
            state.0.lock().unwrap().requested = Some(Instant::now());
            state.1.notify_all();
        }
        for (heads, asked) in heads.chunks(32).zip(asked.chunks(32)) {
            let mut slices: Vec<IoSlice<'_>> =
                heads.iter().zip(asked).flat_map(|(head, block)| [IoSlice::new(head), IoSlice::new(block)]).collect();
            let mut slices = slices.as_mut_slice();
            while !slices.is_empty() {
                let sent = stream.write_vectored(slices)?;
                IoSlice::advance_slices(&mut slices, sent);
            }
        }
    }
}

//! The least loops that could do each job: no protocol, no other torrent, nobody to be fair to.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use rustix::fs::{FallocateFlags, fallocate};
use sha1::{Digest, Sha1};

use crate::machine::Cpu;
use crate::table::Cost;

/// Bytes of one read or write.
const BUF_LEN: usize = 256 * 1024;
/// A block of BEP 3 and the head of its message.
const BLOCK_LEN: usize = 16 * 1024;
const HEAD_LEN: usize = 13;

fn map(path: &Path) -> memmap2::Mmap {
    let file = File::open(path).unwrap();
    // SAFETY: nobody changes the file while the bench runs.
    #[allow(unsafe_code, reason = "what a map costs is what is measured")]
    unsafe {
        memmap2::Mmap::map(&file).unwrap()
    }
}

/// Sixteen blocks and their heads in a `writev` from a mapped file, to each of `connections` in turn; each gets its share.
pub fn seeding(content: &Path, connections: usize) -> Cost {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let reader = std::thread::spawn(move || {
        drain(&(0..connections).map(|_| TcpStream::connect(addr).unwrap()).collect::<Vec<_>>())
    });
    let streams: Vec<TcpStream> = (0..connections).map(|_| listener.accept().unwrap().0).collect();
    let (cpu, start) = (Cpu::of_this_thread(), Instant::now());
    let map = map(content);
    let share = map.len() / connections / BUF_LEN * BUF_LEN;
    let sent = send_shares(streams, &map, share);
    let (cpu, took) = (cpu.spent(), start.elapsed());
    reader.join().unwrap();
    Cost::new(cpu, took, sent)
}

fn send_shares(streams: Vec<TcpStream>, map: &[u8], share: usize) -> u64 {
    let head = [0_u8; HEAD_LEN];
    let mut poll = Poll::new().unwrap();
    let mut senders: Vec<Option<(mio::net::TcpStream, usize)>> = Vec::new();
    for (number, stream) in streams.into_iter().enumerate() {
        stream.set_nonblocking(true).unwrap();
        let mut stream = mio::net::TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(number), Interest::WRITABLE).unwrap();
        senders.push(Some((stream, 0)));
    }
    let with_heads = share / BLOCK_LEN * (BLOCK_LEN + HEAD_LEN);
    let (mut events, mut open) = (Events::with_capacity(1024), senders.len());
    let total = (share * open) as u64;
    while open > 0 {
        poll.poll(&mut events, None).unwrap();
        for event in &events {
            let number = event.token().0;
            while let Some((stream, at)) = &mut senders[number] {
                let mut slices = Vec::with_capacity(32);
                let (mut block, mut skip) = (*at / (BLOCK_LEN + HEAD_LEN), *at % (BLOCK_LEN + HEAD_LEN));
                while slices.len() < 32 && block < share / BLOCK_LEN {
                    let start = number * share + block * BLOCK_LEN;
                    slices.push(IoSlice::new(&head[skip.min(HEAD_LEN)..]));
                    slices.push(IoSlice::new(&map[start + skip.saturating_sub(HEAD_LEN)..start + BLOCK_LEN]));
                    (block, skip) = (block + 1, 0);
                }
                match stream.write_vectored(&slices) {
                    Ok(sent) => *at += sent,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
                if *at == with_heads {
                    senders[number] = None;
                    open -= 1;
                }
            }
        }
    }
    total
}

/// Reads until every stream has ended.
fn drain(streams: &[TcpStream]) {
    let mut poll = Poll::new().unwrap();
    let mut streams: Vec<mio::net::TcpStream> = streams
        .iter()
        .map(|stream| {
            stream.set_nonblocking(true).unwrap();
            mio::net::TcpStream::from_std(stream.try_clone().unwrap())
        })
        .collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        poll.registry().register(stream, Token(number), Interest::READABLE).unwrap();
    }
    let (mut events, mut buf, mut open) = (Events::with_capacity(1024), vec![0; BUF_LEN], streams.len());
    while open > 0 {
        poll.poll(&mut events, None).unwrap();
        for event in &events {
            loop {
                match streams[event.token().0].read(&mut buf) {
                    Ok(0) => {
                        open -= 1;
                        poll.registry().deregister(&mut streams[event.token().0]).unwrap();
                        break;
                    }
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
    }
}

/// `recv`, SHA-1 while it is hot, `pwrite` to a file that has its room.
pub fn downloading(from: &Path, to: &Path) -> Cost {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let map = map(from);
    let len = map.len() as u64;
    let sender = std::thread::spawn(move || {
        let stream = listener.accept().unwrap().0;
        send_shares(vec![stream], &map, map.len());
    });
    let target = File::options().create(true).truncate(true).read(true).write(true).open(to).unwrap();
    let mut stream = TcpStream::connect(addr).unwrap();
    let (cpu, start) = (Cpu::of_this_thread(), Instant::now());
    fallocate(&target, FallocateFlags::empty(), 0, len).unwrap();
    let (mut buf, mut hasher, mut at) = (vec![0; BUF_LEN], Sha1::new(), 0);
    loop {
        let read = stream.read(&mut buf).unwrap();
        if read == 0 {
            break;
        }
        hasher.update(&buf[..read]);
        // The heads are written too: 13 bytes in 16,397.
        let now = read.min(usize::try_from(len - at).unwrap());
        target.write_all_at(&buf[..now], at).unwrap();
        at += now as u64;
    }
    std::hint::black_box(hasher.finalize());
    let cost = Cost::new(cpu.spent(), start.elapsed(), len);
    sender.join().unwrap();
    std::fs::remove_file(to).unwrap();
    cost
}

/// `pread` 256 KiB, hash them.
pub fn checking<D: Digest>(content: &Path, piece_len: u64) -> Cost {
    let file = File::open(content).unwrap();
    let len = file.metadata().unwrap().len();
    let (cpu, start) = (Cpu::of_this_thread(), Instant::now());
    let mut buf = vec![0; BUF_LEN];
    for piece in (0..len).step_by(usize::try_from(piece_len).unwrap()) {
        let mut hasher = D::new();
        for at in (piece..(piece + piece_len).min(len)).step_by(BUF_LEN) {
            file.read_exact_at(&mut buf, at).unwrap();
            hasher.update(&buf);
        }
        std::hint::black_box(hasher.finalize());
    }
    Cost::new(cpu.spent(), start.elapsed().max(Duration::from_nanos(1)), len)
}

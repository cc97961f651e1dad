//! The least that could answer: bytes in, as many bytes out as an answer has, and nothing looked at.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use rustix::net::{SendFlags, send};
use slab::Slab;

use crate::batch::Batch;
use crate::machine::{self, Cpu};

/// How often it looks whether it is over.
const LOOK: Duration = Duration::from_millis(100);

/// A thread that answers.
pub struct Bare {
    pub addr: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(f64, [f64; 2])>,
}

impl Bare {
    /// Answers datagrams, a batch in each of two system calls.
    pub fn udp(answer_len: usize) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        Self::start(socket.local_addr().unwrap(), move |is_over| {
            let mut batch = Batch::new();
            while !is_over.load(Ordering::Relaxed) {
                let came = batch.wait_from(&socket);
                if came > 0 {
                    batch.set_lens(came, answer_len);
                    batch.send_back(&socket, came);
                }
            }
        })
    }

    /// Answers each request that comes in one piece, and closes the connection unless it is kept: then its end leaves in the
    /// answer's packet, which saves a sixth.
    pub fn http(answer_len: usize, keep_alive: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        Self::start(addr, move |is_over| serve(listener, &vec![b'x'; answer_len], keep_alive, is_over))
    }

    fn start(addr: SocketAddr, answer: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let (cpu, before) = (Cpu::of_this_thread(), machine::cpu_parts_of_this_thread());
            answer(&over);
            let after = machine::cpu_parts_of_this_thread();
            (cpu.spent(), [after[0] - before[0], after[1] - before[1]])
        });
        Self { addr, is_over, thread }
    }

    /// Ends it; what it took, and of that what user and system.
    pub fn end(self) -> (f64, [f64; 2]) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn serve(listener: TcpListener, answer: &[u8], keep_alive: bool, is_over: &AtomicBool) {
    const LISTENER: Token = Token(usize::MAX >> 1);
    let how = if keep_alive { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::MORE };
    let mut listener = mio::net::TcpListener::from_std(listener);
    let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(256));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
    let (mut streams, mut request) = (Slab::new(), [0; 2048]);
    while !is_over.load(Ordering::Relaxed) {
        if poll.poll(&mut events, Some(LOOK)).is_err() {
            continue;
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let entry = streams.vacant_entry();
                    poll.registry().register(&mut stream, Token(entry.key()), Interest::READABLE).unwrap();
                    entry.insert(stream);
                }
                continue;
            }
            let Token(key) = event.token();
            let Some(stream) = streams.get_mut(key) else { continue };
            let is_asked = matches!(stream.read(&mut request), Ok(1..));
            if is_asked {
                let _ = send(&*stream, answer, how);
            }
            if !is_asked || !keep_alive {
                streams.remove(key);
            }
        }
    }
}

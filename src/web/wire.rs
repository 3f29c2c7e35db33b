//! One connection of a client, as the HTTP server reads and writes it: with an end that others can bring about.
//!
//! In: an accepted connection, over TCP, over TLS, or from the control socket. Out: the same bytes, but for two things. A client that
//! takes nothing of what is sent to it for `server.client_timeout` is cut off, and so is one whose [`Cutter`] says so: a live stream
//! whose token was revoked must end even where the client does not read, and then nobody asks the stream for more. And the bodiless
//! answers that actix gives to what is no request are replaced ([`super::bare`]); a `100 Continue` with the final answer right behind it
//! is left out, since whoever is refused need not send the body; and whoever was refused within a body is seen off ([`super::linger`]).
//! A crash loses the connection, as it would anyway.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::rt::net::{ActixStream, Ready, TcpStream, UnixStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    bare,
    linger::{Linger, Next},
};

/// Bytes that a connection reads before what it has is looked at.
const TURN_BYTES: usize = 16 * 1024;
/// Room that a read leaves in the buffer, bytes. actix by itself reads on up to 128 KiB, into a buffer that doubles as soon as less than
/// this is left while something is in it, and of which a request keeps the part with its head: with hundreds of senders of large pushes
/// that was most of the daemon's memory. Looked at before it is full, the buffer stays at its first 8 KiB.
const ROOM_BYTES: usize = 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a connection can run over.
pub(super) trait Medium: ActixStream + 'static {
    /// The socket beneath; `None` for the control socket.
    fn tcp(&self) -> Option<&TcpStream>;
    /// Whether we encrypt it ourselves.
    const ENCRYPTED: bool = false;
}

impl Medium for TcpStream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Medium for TlsStream<TcpStream> {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self.get_ref().0)
    }
    const ENCRYPTED: bool = true;
}

impl Medium for UnixStream {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

/// Has a say in a connection from outside of it, on the thread that serves it.
#[derive(Clone, Default)]
pub struct Cutter(Rc<Cut>);

#[derive(Default)]
struct Cut {
    /// The connection has ended or must end.
    done: Cell<bool>,
    /// The socket, good until `done`.
    socket: Option<RawFd>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
    linger: Linger,
}

impl Cutter {
    /// Ends an HTTP/1 connection after the answer to the request in hand, in a way that the sender still sees that answer: what
    /// still comes of its body is read and forgotten, at most `bytes` of it, for at most `patience`.
    pub fn linger(&self, bytes: usize, patience: Duration) {
        self.0.linger.order(bytes, patience);
    }

    /// Whether the connection ends after the answer.
    pub fn lingers(&self) -> bool {
        self.0.linger.is_ordered()
    }

    /// Ends the connection now: what was not sent yet is dropped, the client sees a reset. Returns whether there was anything to end.
    pub fn cut(&self) -> bool {
        if self.0.done.replace(true) {
            return false;
        }
        for slot in [&self.0.reader, &self.0.writer] {
            if let Some(waker) = slot.take() {
                waker.wake();
            }
        }
        true
    }

    /// Bounds what the kernel takes for a client that does not read, to about twice `bytes`; by itself it takes up to 4 MB. Not for
    /// answers whose speed matters.
    pub fn bound_backlog(&self, bytes: usize) {
        let Some(socket) = self.0.socket.filter(|_| !self.0.done.get()) else { return };
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        if let Err(error) = set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes) {
            log::debug!(target: "belayd::web", error:% = error; "the connection's send buffer cannot be set");
        }
    }

    fn watch(slot: &RefCell<Option<Waker>>, context: &Context<'_>) {
        let mut slot = slot.borrow_mut();
        if !slot.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *slot = Some(context.waker().clone());
        }
    }
}

impl fmt::Debug for Cutter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cutter").field("done", &self.0.done.get()).finish()
    }
}

/// See the module.
pub(super) struct Wire<IO> {
    io: IO,
    cutter: Cutter,
    /// How long the client may take nothing; `None` for the control socket, whose owner may look at a tail for as long as they like.
    patience: Option<Duration>,
    /// Bytes read in this turn.
    taken: usize,
    /// Runs while the client takes nothing.
    waiting: Option<Pin<Box<Sleep>>>,
    /// Runs while what comes is forgotten.
    forgetting: Option<Pin<Box<Sleep>>>,
    /// An answer of ours on its way out instead of a bare one.
    instead: Option<Instead>,
}

struct Instead {
    bytes: Vec<u8>,
    sent: usize,
}

impl<IO: Medium> Wire<IO> {
    /// Takes over an accepted connection.
    pub(super) fn new(io: IO, patience: Duration) -> Self {
        let patience = io.tcp().map(|tcp| {
            // What the kernel has taken but the client has not waits no longer either; without this a client that has vanished, or
            // that keeps its window shut, is given up after a quarter of an hour at the earliest.
            let millis = libc::c_int::try_from(patience.as_millis()).unwrap_or(libc::c_int::MAX);
            if let Err(error) = set_option(tcp.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, millis) {
                log::debug!(target: "belayd::web", error:% = error; "the connection's time-out cannot be set");
            }
            patience
        });
        let socket = io.tcp().map(AsRawFd::as_raw_fd);
        let cutter = Cutter(Rc::new(Cut { socket, ..Cut::default() }));
        Self { io, cutter, patience, taken: 0, waiting: None, forgetting: None, instead: None }
    }

    /// To end the connection with.
    pub(super) fn cutter(&self) -> Cutter {
        self.cutter.clone()
    }

    /// The client's address; `None` on the control socket.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.io.tcp()?.peer_addr().ok()
    }

    /// Whether this is the control socket.
    pub(super) fn is_control(&self) -> bool {
        self.io.tcp().is_none()
    }

    fn ended(&self) -> io::Error {
        if let Some(tcp) = self.io.tcp() {
            // Dropped like this the socket is reset, and the kernel does not go on sending what waits in it.
            let _ = tcp.set_zero_linger();
        }
        io::Error::new(io::ErrorKind::ConnectionAborted, "cut off")
    }

    /// Whether the connection may go on, given what became of an attempt to send.
    fn judge<T>(&mut self, context: &mut Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            self.waiting = None;
            return sent;
        }
        if self.cutter.0.done.get() {
            return Poll::Ready(Err(self.ended()));
        }
        Cutter::watch(&self.cutter.0.writer, context);
        let Some(patience) = self.patience else { return Poll::Pending };
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(waiting.as_mut().poll(context));
        log::info!(target: "belayd::web", peer:? = self.peer(), timeoutMs = patience.as_millis() as u64; "a client does not take what is sent to it: cut off");
        Poll::Ready(Err(self.ended()))
    }

    /// Sends what is left of our own answer; ready when all of it is out.
    fn send_instead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(instead) = &mut self.instead {
            let Some(rest) = instead.bytes.get(instead.sent..).filter(|rest| !rest.is_empty()) else {
                self.instead = None;
                break;
            };
            match ready!(Pin::new(&mut self.io).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => instead.sent += written,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.instead.is_none() {
            if bytes.strip_prefix(CONTINUE).is_some_and(|behind| behind.starts_with(b"HTTP/1.1 ")) {
                return Poll::Ready(Ok(CONTINUE.len()));
            }
            match bare::find(bytes) {
                None => return Pin::new(&mut self.io).poll_write(context, bytes),
                // What stands before it goes out first; the next call begins with the bare answer.
                Some(at @ 1..) => return Pin::new(&mut self.io).poll_write(context, &bytes[..at]),
                Some(0) => self.instead = Some(Instead { bytes: bare::replace(bytes), sent: 0 }),
            }
        }
        // Until all is out, the caller is told that nothing was taken and offers the same bytes again.
        ready!(self.send_instead(context))?;
        Poll::Ready(Ok(bytes.len()))
    }
}

impl<IO: Medium> Wire<IO> {
    /// Reads no more than is left of this turn, and leaves room where there is more than that.
    fn read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let room = buffer.remaining();
        let most = if room > ROOM_BYTES { room - ROOM_BYTES } else { room };
        let mut limited = buffer.take(most.min(TURN_BYTES - self.taken));
        ready!(Pin::new(&mut self.io).poll_read(context, &mut limited))?;
        let read = limited.filled().len();
        // SAFETY: `limited` is the beginning of the room in `buffer`, and so much of it has just been filled.
        unsafe { buffer.assume_init(read) };
        buffer.advance(read);
        self.taken += read;
        Poll::Ready(Ok(read))
    }

    /// What becomes of a read on a connection that is to end: ready where the sender counts as having ended.
    fn see_off(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.cutter.0.linger.next() == Next::Close {
            match Pin::new(&mut self.io).poll_shutdown(context) {
                // Comes again with the next look; meanwhile what comes is read.
                Poll::Pending => {}
                // A sender that has gone already has nothing to be told.
                Poll::Ready(_) => self.cutter.0.linger.closed(),
            }
        }
        match self.cutter.0.linger.next() {
            Next::Read | Next::Close => Poll::Pending,
            Next::End => Poll::Ready(()),
            Next::Forget(patience) => {
                let forgetting = self.forgetting.get_or_insert_with(|| Box::pin(sleep(patience)));
                forgetting.as_mut().poll(context)
            }
        }
    }
}

impl<IO> Drop for Wire<IO> {
    fn drop(&mut self) {
        self.cutter.0.done.set(true);
    }
}

impl<IO: Medium> AsyncRead for Wire<IO> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.cutter.0.done.get() {
            return Poll::Ready(Err(this.ended()));
        }
        if this.cutter.lingers() && this.see_off(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if this.taken >= TURN_BYTES || (this.taken > 0 && buffer.remaining() <= ROOM_BYTES) {
            // The rest at the next turn, which comes at once: first what was read is looked at.
            this.taken = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let read = this.read(context, buffer);
        match &read {
            Poll::Pending => {
                this.taken = 0;
                Cutter::watch(&this.cutter.0.reader, context);
            }
            Poll::Ready(read) => this.cutter.0.linger.forgot(*read.as_ref().unwrap_or(&0)),
        }
        read.map_ok(|_| ())
    }
}

impl<IO: Medium> AsyncWrite for Wire<IO> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = this.write(context, bytes);
        if matches!(sent, Poll::Ready(Ok(1..))) {
            this.cutter.0.linger.sent();
        }
        this.judge(context, sent)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.io).poll_flush(context);
        if matches!(sent, Poll::Ready(Ok(()))) {
            this.cutter.0.linger.flushed();
        }
        this.judge(context, sent)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

impl<IO: Medium> ActixStream for Wire<IO> {
    fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.io.poll_read_ready(context)
    }

    fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.io.poll_write_ready(context)
    }
}

fn set_option(socket: RawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: plain system call; the options used here take an int of just this size. A descriptor that is none only gives an error.
    let set = unsafe { libc::setsockopt(socket, level, option, (&raw const value).cast(), size) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
